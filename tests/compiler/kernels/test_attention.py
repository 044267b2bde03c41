"""Shiftmax, the normalized product and the fused attention against `numerics`."""

import numpy as np
import pytest

from tests.compiler.kernels.util import FEATURES, GPU, VNNI, random_codes, run_op
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.compiler.kernels.cpu.octaves import half_constants
from vitq.compiler.target.features import Features
from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import AttentionParams, int_offset_attention
from vitq.numerics.exp2 import exp2_fraction
from vitq.numerics.log_codes import code_table, log_code_params
from vitq.numerics.matmul import int_matmul
from vitq.numerics.offset import OFFSET_LIMIT
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    SMALLEST_CODE_SUM,
    SMALLEST_WIDE_SUM,
    CodeParams,
    NormalizeParams,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax,
    shiftmax_codes,
    shiftmax_params,
)
from vitq.numerics.twin_codes import ONE_RANGE, TwinCodes
from vitq.relay_passes.dialect import names

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)


def out_params(scale: float, zero_point: int) -> QuantParams:
    """An int8 output quantizer."""
    return QuantParams(np.float32(scale), np.int32(zero_point), -128, 127)


def unusual(multiplier: int, shift: int) -> CodeParams:
    """Uniform codes with a factor that no scale gives."""
    return CodeParams(multiplier, shift, 12, CODE_LIMIT, 0, *ONE_RANGE)


def scores(rng: np.random.Generator, columns: int) -> IntArray:
    """Rows of many spreads, with ties at the maximum and the whole int32 score range."""
    spreads = np.array([1, 10, 1000, 100_000, 2**29])
    x = (rng.normal(size=(5, columns)) * spreads[:, None]).clip(-(2**30) + 1, 2**30 - 1)
    x = x.astype(np.int32)
    x[-1, 0], x[-1, -1] = 2**30 - 1, -(2**30) + 1
    x[0] = x[0, 0]
    return x


@FEATURE_IDS
@pytest.mark.parametrize("columns", [197, 16, 5])
@pytest.mark.parametrize("scale", [1e-6, 3e-4, 0.05, 2.0])
def test_shiftmax_codes(columns: int, scale: float, features: CpuFeatures) -> None:
    """Shifts from 46 down to below 32."""
    x = scores(np.random.default_rng(columns), columns)
    p = code_params(scale)
    out = TensorType(x.shape, "uint8")
    result = run_op(names.SHIFTMAX_CODES, [x, np.array(p, np.int64)], out, features)
    np.testing.assert_array_equal(result, shiftmax_codes(x, p))


@FEATURE_IDS
@pytest.mark.parametrize("params", [(0, 1), (1, 1), (2**31 - 1, 1), (2**30, 2), (5, 3), (7, 40)])
def test_shiftmax_codes_with_unusual_factors(
    params: tuple[int, int], features: CpuFeatures
) -> None:
    """Multipliers that are not normalized and factors beyond any real scale."""
    x = scores(np.random.default_rng(1), 20)
    p = unusual(*params)
    out = TensorType(x.shape, "uint8")
    result = run_op(names.SHIFTMAX_CODES, [x, np.array(p, np.int64)], out, features)
    np.testing.assert_array_equal(result, shiftmax_codes(x, p))


@FEATURE_IDS
@pytest.mark.parametrize("dtype", ["int32", "int8"])
def test_shiftmax(dtype: str, features: CpuFeatures) -> None:
    """The normalized form, also of 8-bit logits."""
    rng = np.random.default_rng(3)
    x = scores(rng, 50) if dtype == "int32" else random_codes(rng, dtype, (2, 3, 49))
    p = shiftmax_params(3e-4 if dtype == "int32" else 0.1)
    norm = normalize_params(255.0, SMALLEST_WIDE_SUM, QuantParams(1 / 255, 0, 0, 255))
    params = np.array([*p, *norm], np.int64)
    result = run_op(names.SHIFTMAX, [x, params], TensorType(x.shape, "uint8"), features)
    np.testing.assert_array_equal(result, shiftmax(x, p, norm))


@FEATURE_IDS
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", [(2, 19, 33, 64), (1, 6, 7, 12), (1, 4, 4, 24)])
def test_normalized_matmul(
    shape: tuple[int, int, int, int], dtype: str, features: CpuFeatures
) -> None:
    """V with a zero point."""
    batch, rows, inner, width = shape
    rng = np.random.default_rng(width)
    codes = random_codes(rng, "uint8", (batch, rows, inner))
    codes[:, :, 0] = 255
    codes[:, 0, 1:] = 0
    value = random_codes(rng, dtype, (batch, inner, width))
    norm = normalize_params(0.8, SMALLEST_CODE_SUM, out_params(0.1, 4))
    zero = 5 if dtype == "int8" else 120
    params = np.array([zero, *norm], np.int64)
    out = TensorType((batch, rows, width), "int8")
    result = run_op(names.NORMALIZED_MATMUL, [codes, value, params], out, features, known=2)
    np.testing.assert_array_equal(result, normalized_matmul(codes, value, zero, norm))


def reference_attention(
    qkv: IntArray, zeros: tuple[int, int, int], p: CodeParams, norm: NormalizeParams
) -> IntArray:
    """The unfused operators, (B, N, 3, H, D) -> (B, N, H, D)."""
    q, k, v = qkv.astype(np.int64).transpose(2, 0, 3, 1, 4)
    products = int_matmul(q - zeros[0], (k - zeros[1]).transpose(0, 1, 3, 2))
    out = normalized_matmul(shiftmax_codes(products, p), v, zeros[2], norm)
    return out.transpose(0, 2, 1, 3)


def check_attention(
    shape: tuple[int, ...],
    p: CodeParams,
    features: Features,
    draw: np.random.Generator | dict[str, int] | None = None,
) -> None:
    """Same bits as the separate operators, with zero points and extreme rows."""
    rng = np.random.default_rng(shape[1])
    qkv = random_codes(rng, "int8", shape)
    qkv[0, 0] = -128
    qkv[0, -1, :2], qkv[0, -1, 2] = 127, -128
    zeros = (3, -9, 11)
    norm = normalize_params(1.7, SMALLEST_CODE_SUM, out_params(0.1, -3))
    params = np.array([*zeros, *p, *norm], np.int64)
    out = TensorType((shape[0], shape[1], shape[3], shape[4]), "int8")
    result = run_op(names.ATTENTION, [qkv, params], out, features, draw=draw)
    np.testing.assert_array_equal(result, reference_attention(qkv, zeros, p, norm))


@FEATURE_IDS
@pytest.mark.parametrize(
    "shape", [(1, 197, 3, 2, 64), (2, 17, 3, 3, 16), (1, 5, 3, 1, 12), (1, 33, 3, 2, 24)]
)
@pytest.mark.parametrize("scale", [2e-5, 1e-3])
def test_attention(shape: tuple[int, ...], scale: float, features: CpuFeatures) -> None:
    """Octaves in 64 bits and in 16."""
    check_attention(shape, code_params(scale), features)


def test_attention_of_heads_with_half_a_register_more() -> None:
    """K is transposed by whole registers, then by half of one."""
    check_attention((1, 21, 3, 2, 96), code_params(1e-3), VNNI)


@FEATURE_IDS
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 50, 3, 3, 64), (1, 100, 3, 1, 32)])
def test_attention_schedules(shape: tuple[int, ...], seed: int, features: CpuFeatures) -> None:
    """No schedule changes a bit: random points of the knobs' space."""
    draw = np.random.default_rng(seed)
    check_attention(shape, code_params(3e-4 * 2**seed / 4), features, draw)


@pytest.mark.parametrize(("row_warps", "key_warps"), [(4, 1), (4, 2), (8, 1), (8, 4)])
@pytest.mark.parametrize("tokens", [65, 81, 100])
def test_a_block_on_a_gpu_with_more_warps_than_rows(
    tokens: int, row_warps: int, key_warps: int
) -> None:
    """Three, two or one of four have nothing to do; of eight as many; 32 warps are too many."""
    values = {"row_warps": row_warps, "key_warps": key_warps}
    check_attention((1, tokens, 3, 2, 32), code_params(3e-4), GPU, values)


@FEATURE_IDS
@pytest.mark.parametrize("params", [(0, 1), (2**31 - 1, 1), (2**30, 2), (7, 46), (2**31 - 1, 31)])
def test_attention_with_unusual_factors(params: tuple[int, int], features: CpuFeatures) -> None:
    """Factors beyond any real scale, too small ones too: missing tokens never count."""
    check_attention((1, 21, 3, 1, 16), unusual(*params), features)


def check_offset_attention(
    shape: tuple[int, ...],
    p: CodeParams,
    features: Features,
    draw: np.random.Generator | dict[str, int] | None = None,
) -> None:
    """Same bits as the contract, with biases, masks and windows of which some are alike."""
    rng = np.random.default_rng(shape[1])
    qkv = random_codes(rng, "int8", shape)
    qkv[0, -1, :2], qkv[0, -1, 2] = 127, -128
    tokens, heads = shape[1], shape[3]
    offsets = rng.integers(-20_000, 20_000, (3, tokens, tokens), dtype=np.int32)
    hidden = rng.random(offsets.shape) < 0.4
    hidden[2] = True  # nothing but masks, and two of them
    offsets[hidden] -= OFFSET_LIMIT
    offsets[2] -= OFFSET_LIMIT
    index = rng.integers(0, 3, (2, heads), dtype=np.int32)
    norm = normalize_params(1.7, SMALLEST_CODE_SUM, out_params(0.1, -3))
    joined = AttentionParams(3, -9, 11, *p, *norm)
    out = TensorType((shape[0], tokens, heads, shape[4]), "int8")
    operands = [qkv, offsets, index, np.array(joined, np.int64)]
    result = run_op(names.OFFSET_ATTENTION, operands, out, features, draw=draw)
    np.testing.assert_array_equal(result, int_offset_attention(qkv, offsets, index, joined))


@FEATURE_IDS
@pytest.mark.parametrize(
    ("shape", "scale"),
    [((2, 49, 3, 1, 32), 1e-3), ((2, 16, 3, 3, 16), 2e-5), ((4, 5, 3, 1, 12), 1e-3)],
)
def test_attention_with_constants(
    shape: tuple[int, ...], scale: float, features: CpuFeatures
) -> None:
    """Octaves in 64 bits and in 16; whole registers of keys, and missing ones; two pictures."""
    check_offset_attention(shape, code_params(scale), features)


@FEATURE_IDS
@pytest.mark.parametrize("zero", [False, True])
def test_attention_with_constants_and_log_codes(zero: bool, features: CpuFeatures) -> None:
    """Missing keys weigh nothing where the last code does; any schedule."""
    p, draw = log_code_params(3e-4, 2, 8, zero), np.random.default_rng(int(zero))
    check_offset_attention((2, 19, 3, 2, 32), p, features, draw)


def test_scores_with_constants_that_a_gpu_computes_twice() -> None:
    check_offset_attention((2, 289, 3, 1, 32), code_params(3e-4), GPU, {"key_warps": 1})


LOG_CODES = pytest.mark.parametrize(
    ("steps", "levels", "zero"),
    [(1, 16, False), (2, 16, True), (2, 8, False), (8, 64, True)],
)


@FEATURE_IDS
@pytest.mark.parametrize(("steps", "levels", "zero"), [(2, 16, True), (4, 32, False)])
def test_log_codes(steps: int, levels: int, zero: bool, features: CpuFeatures) -> None:
    """Grids of one and two mantissas and of a polynomial; ends that weigh something and nothing."""
    x = scores(np.random.default_rng(levels), 53)
    p = log_code_params(3e-4, steps, levels, zero)
    out = TensorType(x.shape, "uint8")
    result = run_op(names.SHIFTMAX_CODES, [x, np.array(p, np.int64)], out, features)
    np.testing.assert_array_equal(result, shiftmax_codes(x, p))


@FEATURE_IDS
@LOG_CODES
@pytest.mark.parametrize("shape", [(1, 53, 3, 2, 64)])
def test_attention_with_log_codes(
    steps: int, levels: int, zero: bool, shape: tuple[int, ...], features: CpuFeatures
) -> None:
    """Missing tokens weigh nothing, also where the last code does not."""
    p = log_code_params(3e-4 if steps < 4 else 3e-6, steps, levels, zero)
    check_attention(shape, p, features)


TWINS = pytest.mark.parametrize("twin", [(0, 2), (2, 3), (2, 5), (4, 5), (6, 7)])


@FEATURE_IDS
@TWINS
def test_twin_codes(twin: tuple[int, int], features: CpuFeatures) -> None:
    """Every weight there is, so every tie and both sides of the border; no fine rounding, too."""
    x = -np.arange(0, 2400, dtype=np.int32).reshape(4, 600)
    x[:, 0] = 0
    p = code_params(3e-3, TwinCodes(*twin))
    assert len(np.unique(shiftmax_codes(x, code_params(3e-3)))) == 256
    out = TensorType(x.shape, "uint8")
    result = run_op(names.SHIFTMAX_CODES, [x, np.array(p, np.int64)], out, features)
    np.testing.assert_array_equal(result, shiftmax_codes(x, p))


@FEATURE_IDS
@pytest.mark.parametrize(
    ("twin", "scale"),
    [((0, 2), 2e-5), ((2, 3), 1e-3), ((2, 5), 2e-5), ((4, 5), 1e-3), ((6, 7), 2e-5)],
)
def test_attention_with_twin_codes(
    twin: tuple[int, int], scale: float, features: CpuFeatures
) -> None:
    """In lanes of 16 and of 32 bits, with lanes beyond the last token."""
    check_attention((1, 53, 3, 2, 64), code_params(scale, TwinCodes(*twin)), features)


@pytest.mark.parametrize(
    ("steps", "levels", "zero"), [(1, 16, False), (2, 16, True), (4, 8, False)]
)
@pytest.mark.parametrize("scale", [1.1e-4, 3.7e-4, 0.0021, 0.013])
def test_half_constants_of_log_codes(steps: int, levels: int, zero: bool, scale: float) -> None:
    """The coarser grid has the 16-bit form for every distance, too."""
    p = log_code_params(scale, steps, levels, zero)
    constants = half_constants(p)
    assert constants is not None
    high, low, offset, shift, limit = (int(c) for c in constants)
    distance = np.append(np.arange(2**16 + 1), [2**20, 2**31 - 1])
    word = np.clip(2**15 - distance, -(2**15), 2**15 - 1)
    total = word * high + ((word * low) >> 16) + offset
    assert 0 <= total.min() and total.max() < 2**31
    k = np.minimum(total >> shift, limit)
    np.testing.assert_array_equal(code_table(p)[k], shiftmax_codes(-distance, p))


@pytest.mark.parametrize("factor", [0.5626, 0.6013, 0.9969, 1.25, 1.4593, 7.3])
def test_half_constants(factor: float) -> None:
    """Octaves in 16 bits lead to the codes of the contract for every distance."""
    p = code_params(factor / np.log2(np.e) / 2**12)
    constants = half_constants(p)
    assert constants is not None
    high, low, offset, shift, limit = (int(c) for c in constants)
    distance = np.append(np.arange(2**16 + 1), [2**20, 2**31 - 1])
    word = np.clip(2**15 - distance, -(2**15), 2**15 - 1)
    t = np.minimum((word * high + ((word * low) >> 16) + offset) >> shift, 2**16 - 1)
    codes = (exp2_fraction((t % 4096) << 3) + (64 << (t >> 12))) >> (7 + (t >> 12))
    np.testing.assert_array_equal(codes, shiftmax_codes(-distance, p))
    assert max(-high, high + 1, -low, low + 1) <= 2**15
    assert limit == CODE_LIMIT


@pytest.mark.parametrize("params", [(0, 1), (2**30, 31), (2**31 - 1, 1), (1, 46)])
def test_half_constants_refuse(params: tuple[int, int]) -> None:
    """Where 2**16 steps are less than 9 octaves, or the shift is too small."""
    assert half_constants(unusual(*params)) is None


def test_half_constants_refuse_a_coarse_step() -> None:
    """A step of 300 octave steps: taking d = 0 for d = 1 would change a code."""
    assert half_constants(code_params(300 / np.log2(np.e) / 2**12)) is None
