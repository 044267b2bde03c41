"""Shiftmax, the normalized product and the fused attention against `numerics`."""

import numpy as np
import pytest

from compiler.kernels import CpuFeatures, TensorType
from numerics.arrays import IntArray
from numerics.matmul import int_matmul
from numerics.qparams import QuantParams
from numerics.shiftmax import (
    SMALLEST_CODE_SUM,
    SMALLEST_WIDE_SUM,
    NormalizeParams,
    ShiftmaxParams,
    normalize_params,
    normalized_matmul,
    shiftmax,
    shiftmax_codes,
    shiftmax_params,
)
from tests.compiler.kernels.util import FEATURES, random_codes, run_op

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)


def out_params(scale: float, zero_point: int) -> QuantParams:
    """An int8 output quantizer."""
    return QuantParams(np.float32(scale), np.int32(zero_point), -128, 127)


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
    p = shiftmax_params(scale)
    out = TensorType(x.shape, "uint8")
    result = run_op("vitq.shiftmax_codes", [x, np.array(p, np.int64)], out, features)
    np.testing.assert_array_equal(result, shiftmax_codes(x, p))


@FEATURE_IDS
@pytest.mark.parametrize("params", [(0, 1), (1, 1), (2**31 - 1, 1), (2**30, 2), (5, 3), (7, 40)])
def test_shiftmax_codes_with_unusual_factors(
    params: tuple[int, int], features: CpuFeatures
) -> None:
    """Multipliers that are not normalized and factors beyond any real scale."""
    x = scores(np.random.default_rng(1), 20)
    p = ShiftmaxParams(*params)
    out = TensorType(x.shape, "uint8")
    result = run_op("vitq.shiftmax_codes", [x, np.array(p, np.int64)], out, features)
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
    result = run_op("vitq.shiftmax", [x, params], TensorType(x.shape, "uint8"), features)
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
    result = run_op("vitq.normalized_matmul", [codes, value, params], out, features, known=2)
    np.testing.assert_array_equal(result, normalized_matmul(codes, value, zero, norm))


def reference_attention(
    qkv: IntArray, zeros: tuple[int, int, int], p: ShiftmaxParams, norm: NormalizeParams
) -> IntArray:
    """The unfused operators, (B, N, 3, H, D) -> (B, N, H, D)."""
    q, k, v = qkv.astype(np.int64).transpose(2, 0, 3, 1, 4)
    products = int_matmul(q - zeros[0], (k - zeros[1]).transpose(0, 1, 3, 2))
    out = normalized_matmul(shiftmax_codes(products, p), v, zeros[2], norm)
    return out.transpose(0, 2, 1, 3)


@FEATURE_IDS
@pytest.mark.parametrize(
    "shape", [(1, 197, 3, 2, 64), (2, 17, 3, 3, 16), (1, 5, 3, 1, 12), (1, 33, 3, 2, 24)]
)
@pytest.mark.parametrize("scale", [2e-5, 1e-3])
def test_attention(shape: tuple[int, ...], scale: float, features: CpuFeatures) -> None:
    """Same bits as the separate operators, with zero points."""
    rng = np.random.default_rng(shape[1])
    qkv = random_codes(rng, "int8", shape)
    qkv[0, 0] = -128
    zeros = (3, -9, 11)
    p = shiftmax_params(scale)
    norm = normalize_params(1.7, SMALLEST_CODE_SUM, out_params(0.1, -3))
    params = np.array([*zeros, *p, *norm], np.int64)
    out = TensorType((shape[0], shape[1], shape[3], shape[4]), "int8")
    result = run_op("vitq.attention", [qkv, params], out, features)
    np.testing.assert_array_equal(result, reference_attention(qkv, zeros, p, norm))
