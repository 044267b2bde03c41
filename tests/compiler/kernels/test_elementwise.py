"""Add, requantize, look-up, GELU and mean against `numerics`."""

import numpy as np
import pytest

from tests.compiler.kernels.util import FEATURES, VNNI, random_codes, run_op
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType, lower_op, supported_ops
from vitq.compiler.kernels.cpu.shiftgelu import gelu_spec
from vitq.numerics.add import add_params, int_add
from vitq.numerics.dyadic import Dyadic, requantize, rescale, to_dyadic
from vitq.numerics.errors import VitqError
from vitq.numerics.multiply import (
    int_multiply,
    int_multiply_add,
    multiply_add_params,
    multiply_params,
)
from vitq.numerics.offset import int_offset
from vitq.numerics.qparams import QuantParams
from vitq.numerics.rows import GatherParams, gather_rows
from vitq.numerics.shiftgelu import TAIL_LIMIT, gelu_params, shiftgelu
from vitq.numerics.table import PIXELS, TableParams, int_lut
from vitq.numerics.twin import Twin
from vitq.relay_passes.dialect import names

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)


def qparams(dtype: str, scale: float, zero_point: int = 0) -> QuantParams:
    """A quantizer over a type's whole range."""
    info = np.iinfo(dtype)
    return QuantParams(np.float32(scale), np.int32(zero_point), int(info.min), int(info.max))


@FEATURE_IDS
@pytest.mark.parametrize("b_shape", [(2, 9, 37), (9, 37), (1, 9, 37), (37,)])
@pytest.mark.parametrize("dtype", ["int16", "int8", "uint16"])
def test_add(b_shape: tuple[int, ...], dtype: str, features: CpuFeatures) -> None:
    """Broadcasting over leading axes, saturation, zero points."""
    rng = np.random.default_rng(len(b_shape))
    a, b = random_codes(rng, dtype, (2, 9, 37)), random_codes(rng, dtype, b_shape)
    zero = 0 if np.iinfo(dtype).min else 30000
    p = add_params(0.01, zero, 0.003, zero + 5, qparams(dtype, 0.011, zero))
    operands = [a, b, np.array(p, np.int64)]
    result = run_op(names.ADD, operands, TensorType(a.shape, dtype), features, known=2)
    np.testing.assert_array_equal(result, int_add(a, b, p))


@FEATURE_IDS
@pytest.mark.parametrize("shape", [(3, 1, 9, 37), (2, 9, 37), (9, 1), (4, 3, 2, 1, 37), (37,), ()])
@pytest.mark.parametrize("dtype", ["int32", "int8"])
def test_offset(shape: tuple[int, ...], dtype: str, features: CpuFeatures) -> None:
    """Broadcasting along any axes."""
    rng = np.random.default_rng(len(shape))
    x = random_codes(rng, dtype, (4, 3, 2, 9, 37)) // 4
    offset = random_codes(rng, "int32", shape) // 4
    result = run_op(names.OFFSET, [x, offset], TensorType(x.shape, "int32"), features)
    np.testing.assert_array_equal(result, int_offset(x, offset))


@FEATURE_IDS
@pytest.mark.parametrize("channels", [1, 6, 96])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("missing", [False, True])
def test_gather_rows(missing: bool, dtype: str, channels: int, features: CpuFeatures) -> None:
    """Rows of bytes and words, some that are not there."""
    rng = np.random.default_rng(channels)
    x = random_codes(rng, dtype, (2, 9, channels))
    rows = rng.integers(-1 if missing else 0, 9, 14, dtype=np.int32)
    operands = [x, rows, np.array([-77], np.int64)]
    out = TensorType((2, 14, channels), dtype)
    result = run_op(names.GATHER_ROWS, operands, out, features)
    np.testing.assert_array_equal(result, gather_rows(x, rows, GatherParams(-77)))


@FEATURE_IDS
@pytest.mark.parametrize("channels", [1, 45])
@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8"])
def test_requantize(channels: int, dtype: str, features: CpuFeatures) -> None:
    """Per tensor and per channel."""
    rng = np.random.default_rng(channels)
    x = random_codes(rng, dtype, (3, 7, 45))
    x_zero = 0 if dtype == "int32" else 9
    step = 300.0 / np.iinfo(dtype).max
    dyadic = to_dyadic(step * rng.uniform(0.5, 1, channels))
    operands = [x, dyadic.multiplier, dyadic.shift, np.array([x_zero, 4, -128, 127], np.int64)]
    result = run_op(names.REQUANTIZE, operands, TensorType(x.shape, "int8"), features)
    expected = requantize(x.astype(np.int64) - x_zero, dyadic, 4, -128, 127)
    np.testing.assert_array_equal(result, expected)


@FEATURE_IDS
def test_lut(features: CpuFeatures) -> None:
    """A table for each channel."""
    rng = np.random.default_rng(0)
    x = random_codes(rng, "uint8", (2, 3, 5, 7))
    table = random_codes(rng, "int8", (3, 256))
    operands = [x, table, np.array(PIXELS, np.int64)]
    result = run_op(names.LUT, operands, TensorType(x.shape, "int8"), features)
    expected = np.stack([table[c][x[:, c]] for c in range(3)], axis=1)
    np.testing.assert_array_equal(result, expected)


TABLES = {"one": (1, 0, "int8"), "first axis": (3, 0, "uint8"), "last axis": (7, 2, "int16")}


@FEATURE_IDS
@pytest.mark.parametrize(
    ("name", "entries"), [("one", 4096), ("first axis", 256), ("last axis", 200)]
)
def test_lut_of_signed_codes(name: str, entries: int, features: CpuFeatures) -> None:
    """Tables of a power of two of entries and of fewer, all entries read."""
    channels, axis, dtype = TABLES[name]
    rng = np.random.default_rng(entries)
    table = random_codes(rng, dtype, (channels, entries))
    p = TableParams(axis, -entries // 2 + 11)
    narrow = "int8" if entries < 256 else "int16"
    x = (rng.permutation(3 * 5 * 7 * entries) % entries + p.low).astype(narrow)
    x = x.reshape(3, 5 * entries, 7)
    operands = [x, table, np.array(p, np.int64)]
    result = run_op(names.LUT, operands, TensorType(x.shape, dtype), features)
    np.testing.assert_array_equal(result, int_lut(x, table, p))


PAIRS = [
    ((2, 9, 37), (2, 9, 37)),
    ((2, 3, 9, 37), (2, 1, 1, 37)),
    ((2, 1, 37), (1, 9, 1)),
]


@FEATURE_IDS
@pytest.mark.parametrize("shapes", PAIRS, ids=str)
@pytest.mark.parametrize("dtypes", [("int16", "int16"), ("uint8", "int8")], ids=str)
def test_multiply(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    dtypes: tuple[str, str],
    features: CpuFeatures,
) -> None:
    """Broadcasting over any axes, in both directions."""
    rng = np.random.default_rng(len(shapes[0]))
    a, b = (random_codes(rng, dtype, shape) for dtype, shape in zip(dtypes, shapes, strict=True))
    zeros = (0, 0) if dtypes[0] == "int16" else (100, -7)
    shape = np.broadcast_shapes(*shapes)
    for scale in (0.7 * float(a.max()) * float(b.max()) / 2**15, 0.5):  # shifts over 32, and of 30
        p = multiply_params(1.0, zeros[0], 1.0, zeros[1], qparams("int16", scale, 5))
        operands = [a, b, np.array(p, np.int64)]
        result = run_op(names.MULTIPLY, operands, TensorType(shape, "int16"), features, known=2)
        np.testing.assert_array_equal(result, int_multiply(a, b, p))


@FEATURE_IDS
def test_multiply_add(features: CpuFeatures) -> None:
    """A rotation of heads by tables for each token."""
    rng = np.random.default_rng(0)
    shapes, types = ((2, 3, 9, 37), (9, 37)) * 2, ("int16", "int16") * 2
    factors = [random_codes(rng, *pair) for pair in zip(types, shapes, strict=True)]
    factors = [x >> 2 if i % 2 else x for i, x in enumerate(factors)]  # tables have 14 bits
    p = multiply_add_params(1e-6, (0, 0, 0, 0), qparams("int8", 3.0, 5))
    operands = [*factors, np.array(p, np.int64)]
    out = TensorType(shapes[0], "int8")
    result = run_op(names.MULTIPLY_ADD, operands, out, features, known=4)
    np.testing.assert_array_equal(result, int_multiply_add(*factors, p))


@FEATURE_IDS
@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("int16", 3e-4, 0), ("int16", 1e-5, 100), ("int8", 0.05, -20), ("uint8", 0.04, 128)],
)
def test_shiftgelu(dtype: str, scale: float, zero: int, features: CpuFeatures) -> None:
    """Every code of the input type."""
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1, dtype=np.int64).astype(dtype)
    x = np.append(x, x[:5])
    wide, narrow = QuantParams(0.03, -100, -128, 127), QuantParams(0.4, -7, -8, 7)
    for out, twin in ((wide, None), (narrow, None), (wide, Twin(-90, 3)), (narrow, Twin(-8, 1))):
        p = gelu_params(scale, zero, out, twin)
        operands = [x, np.array(p, np.int64)]
        result = run_op(names.SHIFTGELU, operands, TensorType(x.shape, "int8"), features)
        np.testing.assert_array_equal(result, shiftgelu(x, p))


FINE_GELUS = {6.2e-5: 14, 9e-6: 11}
"""Input scales whose tail's shift is under 15, and that shift; the output's are 2**7 times it."""


@FEATURE_IDS
@pytest.mark.parametrize("scale", FINE_GELUS)
def test_shiftgelu_of_a_fine_input(scale: float, features: CpuFeatures) -> None:
    """Every code in 16-bit lanes, the one beyond their distances too."""
    x = np.arange(-(2**15), 2**15, dtype=np.int64).astype(np.int16)
    p = gelu_params(scale, 0, QuantParams(scale * 2**7, -90, -128, 127))
    assert p.tail_shift == FINE_GELUS[scale] and p.farthest >= 2**15
    if isinstance(features, CpuFeatures) and halves_for(features) is not None:
        assert gelu_spec(np.array(p), (-(2**15), 2**15 - 1), "int8", features).halves
    result = run_op(
        names.SHIFTGELU, [x, np.array(p, np.int64)], TensorType(x.shape, "int8"), features
    )
    np.testing.assert_array_equal(result, shiftgelu(x, p))


def test_the_lowest_code_of_a_gelu() -> None:
    """Where the distance 2**15 counts it leads to what 2**15 - 1 does."""
    multiplier = np.arange(1, 2**15, dtype=np.int64)
    farthest = (((TAIL_LIMIT + 1) << 15) - (1 << 14) - 1) // multiplier
    counts = multiplier[farthest >= 2**15]
    ends = ((np.array([[2**15], [2**15 - 1]]) * counts) + (1 << 14)) >> 15
    assert counts.max() == 2**14 - 1
    np.testing.assert_array_equal(ends[0], ends[1])


@FEATURE_IDS
@pytest.mark.parametrize("channels", [48, 21])
def test_mean(channels: int, features: CpuFeatures) -> None:
    """Means over tokens with both zero points."""
    rng = np.random.default_rng(channels)
    x = random_codes(rng, "int8", (2, 65, channels))
    dyadic = to_dyadic(1.3 / 65)
    scalars = [int(dyadic.multiplier), int(dyadic.shift), 4, -6, -128, 127]
    operands = [x, np.array(scalars, np.int64)]
    result = run_op(names.MEAN, operands, TensorType((2, channels), "int8"), features)
    total = (x.astype(np.int64) - 4).sum(axis=1)
    one = Dyadic(np.int64(dyadic.multiplier), np.int64(dyadic.shift))
    np.testing.assert_array_equal(result, np.clip(rescale(total, one) - 6, -128, 127))


def test_unknown_operator() -> None:
    """The error names what exists."""
    with pytest.raises(VitqError, match=r"no kernel for vitq\.conv: known are .*vitq\.add"):
        lower_op("vitq.conv", [], {}, TensorType((1,), "int8"), VNNI)
    assert names.ATTENTION in supported_ops()
