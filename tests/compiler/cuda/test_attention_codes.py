"""The short code of a Shiftmax weight, for every kind of factor and all distances that matter."""

from typing import Any

import numpy as np
import pytest

from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cuda.attention_codes import (
    DISTANCE,
    EXPONENT,
    MULTIPLIER,
    FastCodes,
    fast_codes,
)
from vitq.compiler.kernels.cuda.emit import flat, get, index, launch, put
from vitq.compiler.kernels.cuda.emulator.emulator import run_kernel
from vitq.compiler.kernels.tensor import TensorType
from vitq.numerics.dyadic import rescale, scalar_dyadic
from vitq.numerics.shiftmax import CODE_LIMIT, CodeParams, code_weights

THREADS = 1024


def codes_on_gpu(p: CodeParams, distances: np.ndarray) -> np.ndarray:
    """Each thread's weight of one distance."""
    found = fast_codes(p)
    assert found is not None
    form, words = found
    constants, values = TensorType(words.shape, "int32"), TensorType(distances.shape, "int32")

    def emit(words: Any, distances: Any, out: Any) -> None:
        with launch((values.size // THREADS,), THREADS) as block:
            code = FastCodes(flat(words), form)
            at = index(block.x * THREADS + block.thread)
            put(flat(out), at, code(get(flat(distances), at)))

    func = build("kernel", [constants, values], values, emit)
    return run_kernel(func, [words, distances], np.zeros_like(distances), (0,))


@pytest.mark.parametrize("shift", [26, 30, 31, 32, 33, 36])
@pytest.mark.parametrize("multiplier", [1 << 30, 1402733560, (1 << 31) - 1])
@pytest.mark.parametrize(("grid_bits", "octaves"), [(12, 10), (1, 4), (3, 8)])
def test_short_codes(shift: int, multiplier: int, grid_bits: int, octaves: int) -> None:
    """Distances from 0 to behind the limit, and the largest there is."""
    limit = CODE_LIMIT if grid_bits == 12 else octaves << grid_bits
    p = CodeParams(multiplier, shift, grid_bits, limit, int(grid_bits == 3), 0, 0)
    if fast_codes(p) is None:
        pytest.skip("takes the long code: the distance shifted up would be no word")
    end = (limit << shift) // multiplier + 2
    near = np.unique(np.linspace(0, end, 8 * THREADS - 64).astype(np.int64))
    distances = np.full(8 * THREADS, 2**31 - 1, np.int64)
    distances[: near.size] = near
    distances[near.size : near.size + 3] = (end + 1, 2 * end, 2**24)
    exponent = np.minimum(rescale(distances, scalar_dyadic(multiplier, shift)), limit)
    result = codes_on_gpu(p, distances.astype(np.int32))
    np.testing.assert_array_equal(result, code_weights(exponent, p))


def test_all_forms_are_covered() -> None:
    """A distance that is shifted, a multiplier, and an exponent."""
    shifts = (30, 31, 32, 33)
    found = [fast_codes(CodeParams(1402733560, s, 12, CODE_LIMIT, 0, 0, 0)) for s in shifts]
    expected = [DISTANCE, MULTIPLIER, MULTIPLIER, EXPONENT]
    assert [short and short[0].shifted for short in found] == expected
