"""Each formula of the kernels in NumPy against the contract, on all values where they are few."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vitq.compiler.kernels.forms import dyadic, exp2, int_layernorm, ivit, shiftgelu, shiftmax
from vitq.compiler.kernels.forms.arrays import Arrays
from vitq.compiler.kernels.forms.reciprocal import reciprocal
from vitq.numerics import exp2 as contract
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.numerics.int_layernorm import bit_length, isqrt_normalized
from vitq.numerics.ivit import GELU_OCTAVES, SOFTMAX_OCTAVES, int_div, shift_exp
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params, shiftgelu_tail
from vitq.numerics.shiftgelu import shiftgelu as gelu
from vitq.numerics.shiftmax import CodeParams, code_params, code_weights
from vitq.numerics.twin import Twin
from vitq.numerics.twin_codes import TwinCodes, twin_weights

BOTH = pytest.mark.parametrize("q", [Arrays(), Arrays(few_mantissas=True)], ids=["all", "few"])
Q = Arrays()


def test_power_of_every_fraction() -> None:
    fraction = np.arange(1 << 15)
    np.testing.assert_array_equal(exp2.exp2_fraction(Q, fraction), contract.exp2_fraction(fraction))


@BOTH
@pytest.mark.parametrize("grid_bits", range(13))
def test_octaves_of_every_exponent(grid_bits: int, q: Arrays) -> None:
    """Ten octaves; the constants of a coarse grid are the polynomial's."""
    k = np.arange(10 << grid_bits)
    y, n = exp2.octaves(q, k, grid_bits)
    fraction = (k % (1 << grid_bits)) << (15 - grid_bits)
    np.testing.assert_array_equal(np.broadcast_to(y, k.shape), contract.exp2_fraction(fraction))
    np.testing.assert_array_equal(n, k >> grid_bits)


@BOTH
@pytest.mark.parametrize(
    "p",
    [
        code_params(3e-4),
        code_params(3e-4, TwinCodes(2, 3)),
        code_params(3e-4, TwinCodes(0, 2)),
        log_code_params(3e-4, 1, 16, False),
        log_code_params(3e-4, 2, 16, True),
        log_code_params(3e-6, 8, 64, True),
    ],
    ids=["uniform", "twin", "coarse only", "powers", "half octaves", "eighths"],
)
def test_the_weight_of_every_exponent(p: CodeParams, q: Arrays) -> None:
    k = np.arange(p.limit + 1)
    facts: Any = SimpleNamespace(grid_bits=p.grid_bits, zero_last=bool(p.zero_last), twin=p.twin)
    found = shiftmax.code_weight(q, k, k < p.limit, facts)
    np.testing.assert_array_equal(found, code_weights(k, p))


@pytest.mark.parametrize("twin", [(0, 2), (2, 3), (2, 5), (4, 5), (6, 7)])
def test_twin_ranges_of_every_weight(twin: tuple[int, int]) -> None:
    weights, ranges = np.arange(256), TwinCodes(*twin)
    found = shiftmax.twin_weight(Q, weights, ranges)
    np.testing.assert_array_equal(found, twin_weights(weights, ranges))


def test_the_exponential_of_every_exponent() -> None:
    t = np.arange(16 << 12)
    y, n = contract.exp2_fraction((t % 4096) << 3), t >> 12
    np.testing.assert_array_equal(shiftmax.exponential(Q, t), (y + ((1 << n) >> 1)) >> n)


def rounded(shift: int) -> Any:
    return lambda x: dyadic.rounded(x, (1 << shift) >> 1, shift)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("int16", 3e-4, 0), ("int16", 1e-5, 100), ("int8", 0.05, -20), ("uint8", 0.04, 128)],
)
def test_gelu_of_every_code(dtype: str, scale: float, zero: int) -> None:
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1, dtype=np.int64)
    wide, narrow = QuantParams(0.03, -100, -128, 127), QuantParams(0.4, -7, -8, 7)
    for out, twin in ((wide, None), (narrow, None), (wide, Twin(-90, 3)), (narrow, Twin(-8, 1))):
        p = gelu_params(scale, zero, out, twin)
        shifts = map(rounded, (p.in_shift, p.tail_shift, p.out_shift, p.more))
        coarse: Any = SimpleNamespace(
            steps=p.split_steps,
            down=rounded(p.more + p.twin_shift),
            largest=(p.qmax - p.split) >> p.twin_shift,
        )
        found = shiftgelu.shiftgelu(
            Q, x, p, shiftgelu.GeluShifts(*shifts), coarse if twin else None
        )
        np.testing.assert_array_equal(found, gelu(x, p))


def test_every_tail_of_gelu() -> None:
    v = np.arange(1 << 15)
    np.testing.assert_array_equal(shiftgelu.shiftgelu_tail(Q, v), shiftgelu_tail(v))


@pytest.mark.parametrize("i0", [1, 3, 20, 333, 1 << 20])
@pytest.mark.parametrize("octaves", [SOFTMAX_OCTAVES, GELU_OCTAVES])
def test_ivits_exponential(i0: int, octaves: int) -> None:
    """Every distance near 0, and far ones that are held."""
    x = -np.concatenate([np.arange(3000), 2 ** np.arange(11, 31)]).astype(np.int64)
    found = ivit.shift_exp(Q, x, i0, octaves, lambda t: t // i0)
    np.testing.assert_array_equal(found, shift_exp(x, i0, octaves))


def test_ivits_division_and_factor() -> None:
    rng = np.random.default_rng(0)
    b = (2 ** rng.uniform(0, 44, 20_000)).astype(np.int64)
    a = (b * rng.uniform(0, 1, b.size)).astype(np.int64)
    np.testing.assert_array_equal(ivit.int_div(Q, a, (1 << 62) // b), int_div(a, b))
    x = np.arange(-(2**15), 2**15)
    np.testing.assert_array_equal(ivit.gelu_power(x), x + (x >> 1) + (x >> 3) + (x >> 4))


@pytest.mark.parametrize("channels", [1, 3, 192, 4096])
def test_a_rows_variance_fills_its_radicand(channels: int) -> None:
    """Constant rows with a small eps, and rows that are as far apart as can be."""
    x = np.array([[5] * channels, [-(2**15)] + [2**15 - 1] * (channels - 1)], np.int64)
    total, squares = x.sum(axis=1), (x * x).sum(axis=1)
    spread: IntArray = int_layernorm.variance(Q, channels, total, squares, 7)
    expected = [channels * int(s) - int(t) ** 2 + 7 for s, t in zip(squares, total, strict=True)]
    assert spread.tolist() == expected
    k = int_layernorm.headroom(Q, 64 - bit_length(spread))
    assert ((spread << (2 * k)) >> 60 >= 1).all() and ((spread << (2 * k)) >> 62 == 0).all()


def test_reciprocals_at_squares_and_between() -> None:
    rng = np.random.default_rng(1)
    roots = np.append(rng.integers(2**30, 2**31, 5000), [2**30, 2**30 + 1, 2**31 - 1])
    n = np.concatenate([roots**2, roots**2 + 1, roots**2 + 2 * roots, roots[1:-2] ** 2 - 1])
    n = n[(n >= 2**60) & (n < 2**62)]
    np.testing.assert_array_equal(reciprocal(Q, n), (2**61 - 1) // isqrt_normalized(n))


def test_rescaling_at_ties() -> None:
    rng = np.random.default_rng(2)
    one = to_dyadic(rng.uniform(1e-4, 2, 500))
    x = rng.integers(-(2**31), 2**31, 500)
    multiplier, shift = one.multiplier.astype(np.int64), one.shift.astype(np.int64)
    half = np.int64(1) << (shift - 1)
    found = dyadic.rescaled(Q, x, multiplier, half, shift)
    np.testing.assert_array_equal(found, rescale(x, one))
    ties = np.arange(-10, 11)
    assert dyadic.rounded(ties, 2, 2).tolist() == [int(np.floor(t / 4 + 0.5)) for t in ties]
