"""Linear, patch embedding and the products of activations against `numerics`."""

import numpy as np
import pytest

from tests.compiler.kernels.util import (
    FEATURES,
    VNNI,
    random_codes,
    run_lowered,
    run_op,
    tensor_type,
)
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.numerics.add import add_params, int_add
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import Dyadic, rescale, to_dyadic
from vitq.numerics.matmul import int_matmul
from vitq.numerics.qparams import QuantParams
from vitq.numerics.rows import GatherParams, gather_rows
from vitq.numerics.shiftgelu import gelu_params, shiftgelu
from vitq.numerics.twin import Twin
from vitq.relay_passes.dialect import names

LinearCall = tuple[list[IntArray], IntArray]


def linear_call(
    rng: np.random.Generator,
    x: IntArray,
    channels: int,
    out_dtype: str,
    factor: float,
    bits: int = 8,
) -> LinearCall:
    """Operands of a linear layer on rows `x`, and the contract's result."""
    inner, end = x.shape[-1], 1 << (bits - 1)
    weight = rng.integers(-end, end, (channels, inner), dtype=np.int8)
    weight[0] = end - 1
    weight[-1] = -end
    bias = rng.integers(-(2**20), 2**20, channels).astype(np.int32)
    dyadic = to_dyadic(factor * rng.uniform(0.3, 1.0, channels))
    info = np.iinfo(out_dtype)
    narrow = (-7, 6) if info.min else (1, 13)
    low, high = (info.min, info.max) if info.bits > 8 or rng.random() < 0.5 else narrow
    zero_point = rng.integers(-5, 6, channels).astype(np.int32)
    acc = int_matmul(x, weight.T) + bias
    expected = np.clip(rescale(acc, dyadic) + zero_point, low, high)
    params = np.array([low, high], np.int64)
    return [x, weight, bias, dyadic.multiplier, dyadic.shift, zero_point, params], expected


CASES = [
    # rows, inner, channels, x, out, factor
    (197, 192, 192, "int8", "int8", 2e-4),
    (197, 64, 96, "int8", "int16", 0.02),
    (1, 192, 1000, "int8", "int16", 0.01),
    (2, 48, 10, "uint8", "uint8", 3e-4),
    (13, 37, 50, "int8", "int8", 1e-3),
    (9, 5, 17, "uint8", "int32", 3.0),
    (7, 3, 16, "int8", "int8", 0.9),
    (33, 768, 32, "uint8", "int8", 1e-4),
]


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[:3])))
def test_linear(case: tuple[int, int, int, str, str, float], features: CpuFeatures) -> None:
    """Odd sizes, padding in every direction, shifts on both sides of 32."""
    rows, inner, channels, x_dtype, out_dtype, factor = case
    rng = np.random.default_rng(rows * 1000 + channels)
    x = random_codes(rng, x_dtype, (1, rows, inner))
    x[0, 0] = np.iinfo(x_dtype).min
    x[0, -1] = np.iinfo(x_dtype).max
    operands, expected = linear_call(rng, x, channels, out_dtype, factor)
    out = TensorType((1, rows, channels), out_dtype)
    np.testing.assert_array_equal(run_op(names.LINEAR, operands, out, features), expected)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_linear_of_extremes(dtype: str, features: CpuFeatures) -> None:
    """Every product at an end of its range: an 8-bit pair sum that saturates would show."""
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max], dtype)
    rng = np.random.default_rng(4)
    x = np.concatenate([np.repeat(ends, 96).reshape(2, 96), rng.choice(ends, (20, 96))])
    weight = rng.choice(np.array([-128, 127], np.int8), (24, 96))
    weight[0], weight[1] = -128, 127
    zeros, one = np.zeros(24, np.int32), np.full(24, 2**30, np.int32)
    params = np.array([-(2**31), 2**31 - 1], np.int64)
    operands = [x, weight, zeros, one, np.full(24, 30, np.int32), zeros, params]
    result = run_op(names.LINEAR, operands, TensorType((22, 24), "int32"), features)
    np.testing.assert_array_equal(result, int_matmul(x, weight.T))


FUSED_CASES = [
    # rows, inner, channels, factor
    (13, 37, 70, 0.3),
    (23, 64, 96, 1.7),
    (1, 48, 130, 0.02),
]


def fused_call(
    op: str,
    rng: np.random.Generator,
    case: tuple[int, int, int, float],
    dtypes: tuple[str, str],
    bits: int = 8,
    twin: bool = False,
) -> LinearCall:
    """Operands of a linear layer with a second step, and the contract's result."""
    rows, inner, channels, factor = case
    residual_dtype, out_dtype = dtypes
    x = random_codes(rng, "int8", (1, rows, inner))
    operands, codes = linear_call(rng, x, channels, "int16", factor, bits)
    info = np.iinfo(out_dtype)
    out = QuantParams(np.float32(0.02), np.int32(-3 if info.min else 99), info.min, info.max)
    if op == names.LINEAR_GELU:
        gelu = gelu_params(3e-4, 0, out, Twin(int(out.zero_point) + 3, 2) if twin else None)
        return [*operands, np.array(gelu, np.int64)], shiftgelu(codes, gelu)
    residual = random_codes(rng, residual_dtype, codes.shape)
    p = add_params(0.01, 4, 0.008, -5, out)
    return [*operands, residual, np.array(p, np.int64)], int_add(codes, residual, p)


def run_fused(
    op: str,
    call: LinearCall,
    out_dtype: str,
    features: CpuFeatures,
    draw: np.random.Generator | dict[str, int] | None = None,
) -> None:
    """Compare bit for bit; only x and a residual are not constants."""
    operands, expected = call
    types = [TensorType(tuple(o.shape), str(o.dtype)) for o in operands]
    constants = {i: o for i, o in enumerate(operands) if i not in (0, 7) or op.endswith("gelu")}
    constants.pop(0, None)
    out = TensorType(expected.shape, out_dtype)
    result = run_lowered(lower_op(op, types, constants, out, features), operands, features, draw)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("case", FUSED_CASES, ids=lambda c: "x".join(map(str, c[:3])))
def test_linear_gelu(case: tuple[int, int, int, float], features: CpuFeatures) -> None:
    """A GELU in registers, also with two ranges."""
    op, twin = names.LINEAR_GELU, case[0] != 1
    call = fused_call(op, np.random.default_rng(1), case, ("", "int8"), twin=twin)
    run_fused(op, call, "int8", features)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("dtypes", [("int16", "int16"), ("int8", "int8"), ("uint16", "uint8")])
@pytest.mark.parametrize("case", FUSED_CASES, ids=lambda c: "x".join(map(str, c[:3])))
def test_linear_add(
    case: tuple[int, int, int, float], dtypes: tuple[str, str], features: CpuFeatures
) -> None:
    """A residual of every kind, also one that has no 16-bit form."""
    op = names.LINEAR_ADD
    run_fused(op, fused_call(op, np.random.default_rng(2), case, dtypes), dtypes[1], features)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("rows", "inner"), [(49, 32), (7, 21)])
def test_rows_are_read_through_a_table(
    rows: int, inner: int, dtype: str, features: CpuFeatures
) -> None:
    """Two groups of rows that move alike, alone and with a residual; inner sizes of all kinds."""
    rng = np.random.default_rng(inner)
    x = random_codes(rng, dtype, (2, 11, inner))
    table = rng.integers(0, 11, rows, dtype=np.int32)
    moved = gather_rows(x, table, GatherParams(0))
    (_, *layer), expected = linear_call(rng, moved, 24, "int8", 1e-3)
    out = TensorType(expected.shape, "int8")
    found = run_op(names.GATHER_LINEAR, [x, table, *layer], out, features)
    np.testing.assert_array_equal(found, expected)
    residual = random_codes(rng, "int16", expected.shape)
    p = add_params(
        0.01, 3, 0.0001, -2, QuantParams(np.float32(0.02), np.int32(0), -(2**15), 2**15 - 1)
    )
    operands = [x, table, *layer, residual, np.array(p, np.int64)]
    constants = {i: operands[i] for i in (*range(1, 8), 9)}
    types = [tensor_type(o) for o in operands]
    out = TensorType(expected.shape, "int16")
    call = lower_op(names.GATHER_LINEAR_ADD, types, constants, out, features)
    found = run_lowered(call, operands, features, rng)
    np.testing.assert_array_equal(found, int_add(expected, residual, p))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("op", [names.LINEAR, names.LINEAR_ADD, names.LINEAR_GELU])
def test_no_schedule_changes_a_bit(op: str, seed: int) -> None:
    """Random points of the space."""
    rng = np.random.default_rng(seed)
    case = (int(rng.integers(2, 70)), int(rng.integers(4, 90)), int(rng.integers(17, 200)), 0.1)
    if op != names.LINEAR:
        dtype = "int16" if op.endswith("add") else "int8"
        run_fused(op, fused_call(op, rng, case, ("int16", dtype)), dtype, VNNI, rng)
        return
    x = random_codes(rng, "int8", case[:2])
    operands, expected = linear_call(rng, x, case[2], "int8", 1e-3)
    result = run_op(op, operands, TensorType(expected.shape, "int8"), VNNI, draw=rng)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shift", [1, 31, 32, 46])
def test_linear_rounds_ties_up(shift: int) -> None:
    """Accumulators k + 0.5 steps from an integer, positive and negative."""
    x = np.arange(-16, 16, dtype=np.int8).reshape(-1, 1)
    multiplier = np.full(2, 1 << min(shift - 1, 30), np.int32)
    weight = np.array([[1], [-1]], np.int8)
    dyadic = Dyadic(multiplier, np.full(2, shift, np.int32))
    zeros = np.zeros(2, np.int32)
    params = np.array([-128, 127], np.int64)
    operands = [x, weight, zeros, dyadic.multiplier, dyadic.shift, zeros, params]
    expected = np.clip(rescale(int_matmul(x, weight.T), dyadic), -128, 127)
    result = run_op(names.LINEAR, operands, TensorType((32, 2), "int8"), VNNI)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize(("batch", "size", "patch"), [(1, 32, 16), (2, 12, 4), (1, 9, 3)])
def test_patch_embed(batch: int, size: int, patch: int, features: CpuFeatures) -> None:
    """Patches are gathered channels first."""
    rng = np.random.default_rng(size)
    pixels = random_codes(rng, "uint8", (batch, 3, size, size))
    side = size // patch
    tiles = pixels.reshape(batch, 3, side, patch, side, patch).transpose(0, 2, 4, 1, 3, 5)
    rows = np.ascontiguousarray(tiles).reshape(batch, side * side, 3 * patch * patch)
    operands, expected = linear_call(rng, rows, 24, "int16", 0.01)
    operands[0] = pixels
    operands[1] = operands[1].reshape(24, 3, patch, patch)
    out = TensorType((batch, side * side, 24), "int16")
    np.testing.assert_array_equal(run_op(names.PATCH_EMBED, operands, out, features), expected)


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8")])
@pytest.mark.parametrize("shape", [(2, 17, 33, 64), (3, 5, 7, 9)])
def test_matmul(
    shape: tuple[int, int, int, int], dtypes: tuple[str, str], features: CpuFeatures
) -> None:
    """Both zero points, both signs."""
    batch, rows, channels, inner = shape
    rng = np.random.default_rng(rows)
    a = random_codes(rng, dtypes[0], (batch, rows, inner))
    b = random_codes(rng, dtypes[1], (batch, channels, inner))
    params = np.array([3, -7 if dtypes[1] == "int8" else 130], np.int64)
    centred = a.astype(np.int64) - params[0], b.astype(np.int64) - params[1]
    expected = int_matmul(centred[0], centred[1].transpose(0, 2, 1))
    out = TensorType((batch, rows, channels), "int32")
    result = run_op(names.MATMUL, [a, b, params], out, features, known=2)
    np.testing.assert_array_equal(result, expected)
