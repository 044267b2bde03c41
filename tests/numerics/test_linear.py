"""Linear layers and the patch embedding against Python integers and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.linear import (
    GEMM_OPERANDS,
    LinearParams,
    LinearSum,
    accumulate,
    int_linear,
    int_patch_embed,
    linear_params,
    linear_sum,
    patch_rows,
    round_bias,
)
from vitq.numerics.matmul import product_scale
from vitq.numerics.qparams import PerAxis, QuantParams

N, K = 3, 5
scales = st.floats(2.0**-14, 2.0**2)
channel_scales = hnp.arrays(np.float64, (N,), elements=scales)
weights = hnp.arrays(np.int8, (N, K), elements=st.integers(-127, 127))
biases = hnp.arrays(np.int64, (N,), elements=st.integers(-(2**30), 2**30))
inputs = hnp.arrays(st.sampled_from([np.int8, np.uint8]), (4, K))
OUT = QuantParams.per_tensor(0.05, -11, -128, 127)


def layer_of(weight: IntArray, bias: IntArray | int = 0, zero_point: int = 0) -> LinearSum:
    """Scales of 0.5 and 0.125."""
    return linear_sum(weight, 0.125, np.asarray(bias), 0.5, zero_point)


@settings(deadline=None)
@given(inputs, weights, biases, st.integers(-128, 255))
def test_sums(x: IntArray, weight: IntArray, bias: IntArray, zero: int) -> None:
    """Python integers, with the zero point where it belongs: at the input."""
    result = accumulate(x, layer_of(weight, bias, zero))
    for row, sums in zip(x.tolist(), result.tolist(), strict=True):
        for n, acc in enumerate(sums):
            terms = zip(row, weight[n].tolist(), strict=True)
            assert acc == sum((code - zero) * w for code, w in terms) + int(bias[n])


@settings(deadline=None)
@given(inputs, weights, biases, channel_scales, scales, st.integers(-128, 255))
def test_formula(
    x: IntArray, weight: IntArray, bias: IntArray, scale: FloatArray, x_scale: float, zero: int
) -> None:
    """The module's formula, a factor and a zero point for each channel."""
    out = QuantParams(scale[::-1], np.array([-100, 0, 77]), -128, 127, PerAxis(0))
    layer = linear_sum(weight, scale, bias, x_scale, zero)
    p = linear_params(layer, out)
    for n in range(N):
        factor = x_scale * scale[n] / float(out.scale[n])
        multiplier, shift = int(p.dyadic.multiplier[n]), int(p.dyadic.shift[n])
        assert Dyadic(np.array(multiplier), np.array(shift)).real == to_dyadic(factor).real
        for row, code in zip(x.tolist(), int_linear(x, p)[:, n].tolist(), strict=True):
            terms = zip(row, weight[n].tolist(), strict=True)
            acc = sum((value - zero) * w for value, w in terms) + int(bias[n])
            rounded = (acc * multiplier + 2 ** (shift - 1)) // 2**shift
            assert code == min(max(rounded + int(out.zero_point[n]), -128), 127)


@settings(deadline=None)
@given(inputs, weights, channel_scales, scales)
def test_error_against_real_numbers(
    x: IntArray, weight: IntArray, scale: FloatArray, x_scale: float
) -> None:
    """Half a step, a relative 2**-30 of the factor, and half a step of the bias."""
    real = np.linspace(-3, 3, N)
    out = QuantParams.per_tensor(2.0**12, 0, -(2**15), 2**15 - 1)
    bias = round_bias(real, product_scale(x_scale, scale))
    codes = int_linear(x, linear_params(linear_sum(weight, scale, bias, x_scale, 7), out))
    for row, results in zip(x.tolist(), codes.tolist(), strict=True):
        for n, code in enumerate(results):
            step = Fraction(x_scale) * Fraction(scale[n])
            total = sum((v - 7) * w for v, w in zip(row, weight[n].tolist(), strict=True))
            exact = (total * step + Fraction(real[n])) / Fraction(float(out.scale))
            slack = step / 2 / Fraction(float(out.scale)) + abs(exact) * Fraction(1, 2**30)
            assert abs(code - exact) <= Fraction(1, 2) + slack + Fraction(1, 2**40)


def test_ties_go_up() -> None:
    """A factor of exactly one half, negative ties too."""
    layer = LinearSum(np.eye(1, dtype=np.int8), np.zeros(1, np.int64), np.array([0.5]))
    p = linear_params(layer, QuantParams.per_tensor(1.0, 2, -128, 127))
    x = np.array([[-5], [-3], [-1], [1], [3], [5]], np.int8)
    assert int_linear(x, p).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_bias_rounds_half_to_even() -> None:
    """As ONNX quantizers do, not as requantization does."""
    real = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert round_bias(real, np.array(1.0)).tolist() == [-2, -2, 0, 0, 2, 2]
    assert round_bias(real / 4, np.full(6, 0.25)).tolist() == [-2, -2, 0, 0, 2, 2]
    assert round_bias(np.array(1.0), np.array([1.0, 0.5])).dtype == np.int64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bias_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(RangeError, match=r"a bias is not finite \(NaN or Inf\): check the weights"):
        round_bias(np.array([1.0, bad]), np.array(1.0))


def test_order_of_the_scales() -> None:
    """(input * weight) / output in float64: another order gives another last bit."""
    x_scale, weight_scale = float(np.float32(0.1)), np.array([0.3, 0.7], np.float32)
    scale = linear_sum(np.ones((2, 1), np.int8), weight_scale, np.zeros(2), x_scale, 0).scale
    assert scale.dtype == np.float64
    assert scale.tolist() == [x_scale * float(w) for w in weight_scale]


def test_one_scale_and_one_bias_stand_for_all_channels() -> None:
    weight = np.ones((N, K), np.int8)
    layer = linear_sum(weight, 0.5, np.asarray(4), 0.25, 2)
    assert layer.scale.tolist() == [0.125] * N
    assert layer.bias.tolist() == [4 - 2 * K] * N


def test_bias_limit() -> None:
    """An int32 with a negative; the folded bias counts, not the given one."""
    weight = np.full((1, 1), -1, np.int8)
    assert layer_of(weight, ACC_LIMIT).bias.tolist() == [ACC_LIMIT]
    assert layer_of(weight, -ACC_LIMIT).bias.tolist() == [-ACC_LIMIT]
    assert layer_of(weight, -ACC_LIMIT - 1, 1).bias.tolist() == [-ACC_LIMIT]
    for bias, zero in ((ACC_LIMIT, 1), (-ACC_LIMIT - 1, 0)):
        with pytest.raises(RangeError, match="a bias of 2147483648 leaves int32 at input scale"):
            layer_of(weight, bias, zero)
    both = np.array([[1], [-1]], np.int8)
    with pytest.raises(RangeError, match="leaves int32"):
        linear_sum(both, 1.0, np.array([0, ACC_LIMIT]), 1.0, 1)


def test_factor_limit() -> None:
    with pytest.raises(RangeError, match="too large: check the scales"):
        linear_params(linear_sum(np.ones((1, 1), np.int8), 2.0**20, np.zeros(1), 2.0**10, 0), OUT)


def test_extreme_layer_does_not_wrap() -> None:
    """The widest layer of corner codes that int32 holds."""
    count = ACC_LIMIT // (255 * 127)
    x, weight = np.full((1, count), 255, np.uint8), np.full((2, count), 127, np.int8)
    weight[1] = -127
    acc = accumulate(x, layer_of(weight))
    assert acc.tolist() == [[count * 255 * 127, -count * 255 * 127]]


def test_operands() -> None:
    """Six arrays in the order that kernels read, and back."""
    weight = np.arange(6, dtype=np.int64).reshape(2, 3) - 3
    p = linear_params(layer_of(weight, np.array([7, -7])), OUT)
    arrays = p.operands()
    assert len(arrays) == GEMM_OPERANDS - 1
    assert [str(a.dtype) for a in arrays] == ["int8"] + 4 * ["int32"] + ["int64"]
    assert arrays[0].tolist() == weight.tolist() and arrays[1].tolist() == [7, -7]
    assert arrays[2].tolist() == p.dyadic.multiplier.tolist()
    assert arrays[3].tolist() == p.dyadic.shift.tolist()
    assert arrays[4].tolist() == [-11, -11] and arrays[5].tolist() == [-128, 127]
    back = LinearParams.from_operands(arrays)
    assert (back.qmin, back.qmax, back.channels) == (-128, 127, 2)
    x = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    np.testing.assert_array_equal(int_linear(x, back), int_linear(x, p))


@settings(deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)
)
def test_patches(batch: int, channels: int, down: int, across: int, patch: int) -> None:
    """Each row is one patch, channels first; patches lie in reading order."""
    shape = (batch, channels, down * patch, across * patch)
    pixels = np.arange(np.prod(shape)).reshape(shape)
    rows = patch_rows(pixels, patch)
    assert rows.shape == (batch, down * across, channels * patch * patch)
    for place in range(down * across):
        top, left = place // across * patch, place % across * patch
        window = pixels[:, :, top : top + patch, left : left + patch]
        np.testing.assert_array_equal(rows[:, place], window.reshape(batch, -1))


def test_patch_embed() -> None:
    """A convolution by hand."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, 4, 6), dtype=np.uint8)
    weight = rng.integers(-127, 128, (5, 3, 2, 2), dtype=np.int8)
    p = linear_params(linear_sum(weight, 0.5, np.arange(5), 0.004, 9), OUT)
    result = int_patch_embed(pixels, p)
    assert result.shape == (2, 6, 5)
    for b, place, n in np.ndindex(*result.shape):
        y, x = place // 3 * 2, place % 3 * 2
        window = pixels[b, :, y : y + 2, x : x + 2].astype(int) - 9
        acc = int((window * weight[n].astype(int)).sum()) + n
        multiplier, shift = int(p.dyadic.multiplier[n]), int(p.dyadic.shift[n])
        rounded = (acc * multiplier + 2 ** (shift - 1)) // 2**shift - 11
        assert result[b, place, n] == min(max(rounded, -128), 127)
