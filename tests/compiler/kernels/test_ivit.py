"""I-ViT's Shiftmax and ShiftGELU against `numerics.ivit`."""

import numpy as np
import pytest

from tests.compiler.kernels.util import FEATURES, random_codes, run_op
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.numerics.arrays import IntArray
from vitq.numerics.ivit import (
    UNIT_LIMIT,
    IvitSoftmaxParams,
    ivit_gelu_params,
    ivit_shiftgelu,
    ivit_shiftmax,
    ivit_softmax_params,
)
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
SMALLEST, LARGEST = 2.0**-20, 1.9


def check_shiftmax(x: IntArray, p: IvitSoftmaxParams, features: CpuFeatures) -> None:
    """Same bits."""
    params = np.array(p, np.int64)
    result = run_op(names.IVIT_SHIFTMAX, [x, params], TensorType(x.shape, "uint8"), features)
    np.testing.assert_array_equal(result, ivit_shiftmax(x, p))


def check_gelu(
    x: IntArray, scale: float, zero: int, out: QuantParams, dtype: str, features: CpuFeatures
) -> None:
    """Same bits."""
    p = ivit_gelu_params(scale, zero, out)
    operands = [x, np.array(p, np.int64)]
    result = run_op(names.IVIT_SHIFTGELU, operands, TensorType(x.shape, dtype), features)
    np.testing.assert_array_equal(result, ivit_shiftgelu(x, p))


@FEATURE_IDS
@pytest.mark.parametrize("shape", [(2, 3, 197), (5, 16), (1, 1), (3, 5), (2, 31)])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_shiftmax(shape: tuple[int, ...], dtype: str, features: CpuFeatures) -> None:
    """Odd sizes, whole rows of one value, both ends of the type."""
    info = np.iinfo(dtype)
    x = random_codes(np.random.default_rng(shape[-1]), dtype, shape)
    x[0, ..., 0], x[0, ..., -1] = info.min, info.max
    x[-1] = info.min
    check_shiftmax(x, ivit_softmax_params(0.06), features)


@FEATURE_IDS
@pytest.mark.parametrize("scale", [SMALLEST, 1e-4, 0.01, 0.3, LARGEST])
def test_shiftmax_of_accumulators(scale: float, features: CpuFeatures) -> None:
    """The whole range of scores, at the ends of I0's range."""
    spreads = np.array([1, 30, 1000, 100_000, 2**29, 2**29])[:, None]
    x = (np.random.default_rng(1).normal(size=(6, 45)) * spreads).clip(-(2**30) + 1, 2**30 - 1)
    x = x.astype(np.int32)
    x[-1, 0], x[-1, -1] = 2**30 - 1, -(2**30) + 1
    check_shiftmax(x, ivit_softmax_params(scale), features)


@FEATURE_IDS
def test_every_distance_of_small_and_large_units(features: CpuFeatures) -> None:
    """The multiplication that divides by I0 meets each multiple of it, and its neighbours."""
    rng = np.random.default_rng(0)
    for i0 in (1, 2, 3, 7, 64, 1000, 2**19 + 1, UNIT_LIMIT - 1, UNIT_LIMIT):
        near = (np.arange(16)[:, None] * i0 + np.arange(-3, 4)).reshape(-1) * 16 // 23
        x = np.concatenate([[0], -near, rng.integers(-15 * i0, 1, 80)]).astype(np.int32)
        check_shiftmax(x[None], IvitSoftmaxParams(i0), features)


@FEATURE_IDS
@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [
        ("int8", 0.03, 0),
        ("int8", 0.5, -128),
        ("uint8", 0.04, 128),
        ("uint8", LARGEST, 255),
        ("int8", 0.02, 127),
        ("int16", LARGEST, 0),
        ("int16", 0.05, 0),
        ("int16", 3e-4, 40),
        ("int16", SMALLEST, -(2**15)),
        ("uint16", 1e-4, 30_000),
    ],
)
def test_shiftgelu(dtype: str, scale: float, zero: int, features: CpuFeatures) -> None:
    """Rows of all spreads: every row maximum is another reference point."""
    info = np.iinfo(dtype)
    spread = np.array([1, 8, 100, 3000, 2**15, 2**15])[:, None, None]
    x = zero + np.random.default_rng(2).normal(size=(6, 2, 43)) * spread
    x = x.clip(info.min, info.max).astype(dtype)
    x[0, 0], x[0, 1], x[-1, 0] = info.min, info.max, max(zero - 1, info.min)
    x[-1, 1, 0], x[-1, 1, -1] = info.min, info.max
    out = QuantParams(np.float32(max(4 * scale, 1e-3)), np.int32(-7), -128, 127)
    check_gelu(x, scale, zero, out, "int8", features)


@FEATURE_IDS
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_every_code_in_one_row(dtype: str, features: CpuFeatures) -> None:
    """To narrow bounds, and to 16 bits."""
    x = np.arange(-128, 128, dtype=np.int8)[None]
    x = np.concatenate([x, np.minimum(x, 20), np.minimum(x, 3), np.minimum(x, -9)])
    narrow = QuantParams(np.float32(0.1), np.int32(5), 0, 63)
    wide = QuantParams(np.float32(1e-4), np.int32(0), -(2**15), 2**15 - 1)
    check_gelu(x, 0.05, 3, narrow if dtype == "uint8" else wide, dtype, features)
