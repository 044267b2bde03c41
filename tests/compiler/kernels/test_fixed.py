"""The 16-bit lanes of every processor that has them, on all values."""

import numpy as np
import pytest
import tvm

from tests.compiler.kernels.util import CPU_FEATURES, compile_function
from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cpu.builder import Buffer, Expr, for_chunks, load, store
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.numerics.exp2 import mulhrs

FEATURE_IDS = pytest.mark.parametrize("features", CPU_FEATURES, ids=lambda f: f.dot)
SIZE = 1 << 15


@FEATURE_IDS
@pytest.mark.parametrize("more", [0, 1, 7, 15])
def test_rounding_shift(more: int, features: CpuFeatures) -> None:
    """All values and all shifts."""
    halves = halves_for(features)
    if halves is None:
        pytest.skip("no 16-bit form")

    def body(x: Buffer, shift: Buffer, out: Buffer) -> None:
        def emit(i: Expr, n: int) -> None:
            store(out, halves.rounding_shift(load(x, i, lanes=n), load(shift, i, lanes=n), more), i)

        for_chunks(SIZE, halves.lanes, emit)

    words = TensorType((SIZE,), "int16")
    function = compile_function(build("shift", [words, words], words, body), features)
    x = np.arange(SIZE, dtype=np.int16)
    for shift in range(16):
        result = tvm.runtime.tensor(np.zeros(SIZE, np.int16))
        shifts = np.full(SIZE, shift, np.int16)
        function(tvm.runtime.tensor(x), tvm.runtime.tensor(shifts), result)
        expected = (x.astype(np.int64) + ((1 << (shift + more)) >> 1)) >> (shift + more)
        np.testing.assert_array_equal(result.numpy(), expected)


@FEATURE_IDS
def test_order_of_packed_values(features: CpuFeatures) -> None:
    """`words_in_order` and `bytes_in_order` undo what packing does, saturation included."""
    halves = halves_for(features)
    if halves is None:
        pytest.skip("no 16-bit form")
    lanes = halves.lanes // 2

    def packed(x: Buffer) -> list[Expr]:
        parts = [load(x, i * lanes, lanes=lanes) for i in range(4)]
        return [halves.pack_unsigned(*parts[i : i + 2]) for i in (0, 2)]

    def emit_words(x: Buffer, words: Buffer) -> None:
        for i, register in enumerate(packed(x)):
            store(words, halves.words_in_order(register), 2 * i * lanes)

    def emit_codes(x: Buffer, codes: Buffer) -> None:
        store(codes, halves.bytes_in_order(*packed(x)), 0)

    size = 4 * lanes
    x = np.arange(size, dtype=np.int32) * 3 + 1
    x[5] = 70_000
    results = []
    for dtype, body in (("int16", emit_words), ("int8", emit_codes)):
        types = TensorType((size,), "int32"), TensorType((size,), dtype)
        function = compile_function(build("order", types[:1], types[1], body), features)
        result = tvm.runtime.tensor(np.zeros(size, dtype))
        function(tvm.runtime.tensor(x), result)
        results.append(result.numpy())
    words, codes = results
    np.testing.assert_array_equal(words.view(np.uint16), np.minimum(x, 65535))
    signed = words.astype(np.int64)
    np.testing.assert_array_equal(codes.view(np.uint8), signed.clip(0, 255))


@FEATURE_IDS
def test_mulhrs(features: CpuFeatures) -> None:
    """Both signs; -2**15 squared is no operand of the contract."""
    halves = halves_for(features)
    if halves is None:
        pytest.skip("no 16-bit form")

    def body(x: Buffer, y: Buffer, out: Buffer) -> None:
        def emit(i: Expr, n: int) -> None:
            store(out, halves.mulhrs(load(x, i, lanes=n), load(y, i, lanes=n)), i)

        for_chunks(SIZE, halves.lanes, emit)

    words = TensorType((SIZE,), "int16")
    function = compile_function(build("multiply", [words, words], words, body), features)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-(2**15) + 1, 2**15, SIZE, dtype=np.int16) for _ in range(2))
    result = tvm.runtime.tensor(np.zeros(SIZE, np.int16))
    function(tvm.runtime.tensor(x), tvm.runtime.tensor(y), result)
    np.testing.assert_array_equal(result.numpy(), mulhrs(x, y))
