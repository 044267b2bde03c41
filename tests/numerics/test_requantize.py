"""Requantization against Python integers and exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import PerAxis, QuantParams
from vitq.numerics.requantize import (
    RequantizeParams,
    clamp_params,
    int_requantize,
    requantize_factor,
    requantize_params,
)

HALF = Fraction(1, 2)
scales = st.floats(2.0**-20, 2.0**6)
accumulators = hnp.arrays(np.int32, (5, 3), elements=st.integers(-(2**31) + 300, 2**31 - 301))


def output(
    scale: float = 0.25, zero_point: int = 0, low: int = -128, high: int = 127
) -> QuantParams:
    """Parameters with one scale."""
    return QuantParams.per_tensor(scale, zero_point, low, high)


@settings(deadline=None)
@given(
    accumulators,
    hnp.arrays(np.float64, (3,), elements=scales),
    st.integers(-300, 300),
    st.integers(-128, 127),
    scales,
)
def test_formula(x: IntArray, scale: FloatArray, x_zero: int, zero: int, out_scale: float) -> None:
    """The module's formula with Python integers, for each channel on its own."""
    p = requantize_params(scale, x_zero, output(out_scale, zero))
    pairs = zip(p.dyadic.multiplier.tolist(), p.dyadic.shift.tolist(), strict=True)
    columns = int_requantize(x, p).T.tolist()
    for (multiplier, shift), codes, results in zip(pairs, x.T.tolist(), columns, strict=True):
        for code, result in zip(codes, results, strict=True):
            rounded = ((code - x_zero) * multiplier + 2 ** (shift - 1)) // 2**shift
            assert result == min(max(rounded + zero, -128), 127)


@settings(deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), scales, scales)
def test_error_against_the_exact_quotient(code: int, scale: float, out_scale: float) -> None:
    """Half a step for the rounding, and a relative 2**-31 of the factor (2**-47 absolute)."""
    out = output(out_scale, 0, -(2**31) + 1, 2**31 - 1)
    exact = code * Fraction(scale) / Fraction(float(out.scale))
    if abs(exact) > 2**31 - 2:
        return
    result = int(int_requantize(np.array([code]), requantize_params(scale, 0, out))[0])
    # One rounding of the quotient to float64 comes before the multiplier's.
    factor = abs(exact) * Fraction(1, 2**31) * (1 + Fraction(1, 2**20)) + Fraction(abs(code), 2**47)
    assert abs(result - exact) <= HALF + factor


def test_ties_go_up() -> None:
    """Half a step, on both sides of the zero point."""
    p = requantize_params(0.5, 10, output(1.0, -3))
    x = np.array([5, 7, 9, 11, 13, 15], np.int16)
    assert int_requantize(x, p).tolist() == [floor((k - 10) / 2 + 0.5) - 3 for k in x.tolist()]
    assert int_requantize(x, p).tolist() == [-5, -4, -3, -2, -1, 0]


def test_extremes_do_not_wrap() -> None:
    """The largest product: an int32 accumulator and a 31-bit multiplier."""
    near = float(np.nextafter(1.0, 0.0))
    p = requantize_params(near, 0, output(1.0, 0, -(2**31), 2**31 - 1))
    x = np.array([2**31 - 1, -(2**31)], np.int64)
    assert int_requantize(x, p).tolist() == x.tolist()
    p = requantize_params(2.0**29, -1, output(1.0))
    assert int_requantize(np.array([2**31 - 2, -(2**31)]), p).tolist() == [127, -128]


def test_an_unsigned_input_does_not_wrap() -> None:
    """uint8 codes minus a zero point above them."""
    p = requantize_params(1.0, 200, output(1.0, 0, -(2**15), 2**15 - 1))
    assert int_requantize(np.array([0, 255], np.uint8), p).tolist() == [-200, 55]


def test_factor_is_one_division_in_float64() -> None:
    """Of the float32 scale of the output."""
    out = output(0.1)
    assert requantize_factor(0.3, out) == 0.3 / float(np.float32(0.1)) != 0.3 / 0.1
    assert requantize_factor(np.float32(0.3), out).dtype == np.float64
    channels = QuantParams(np.array([0.1, 0.2]), np.zeros(2), -128, 127, PerAxis(0))
    expected = [0.3 / float(s) for s in channels.scale]
    assert requantize_factor(0.3, channels).tolist() == expected


@settings(deadline=None)
@given(hnp.arrays(np.int16, (9,)), st.integers(-(2**15), 2**15 - 2))
def test_clamp_only_clamps(x: IntArray, low: int) -> None:
    p = clamp_params(low, low + 1)
    np.testing.assert_array_equal(int_requantize(x, p), np.clip(x, low, low + 1))
    wide = clamp_params(-(2**15), 2**15 - 1)
    np.testing.assert_array_equal(int_requantize(x, wide), x)


def test_order_of_the_integers() -> None:
    """Kernels read the scalars by position."""
    p = requantize_params(1.0, 3, output(0.5, 7, -50, 50))
    assert p.scalars() == (3, 7, -50, 50)
    assert (int(p.dyadic.multiplier), int(p.dyadic.shift)) == (2**30, 29)
    assert RequantizeParams._fields == ("dyadic", "x_zero_point", "zero_point", "qmin", "qmax")


def test_refuses() -> None:
    """Zero points that differ between channels, and scales without a quotient."""
    apart = QuantParams(np.ones(2), np.array([0, 1]), -128, 127, PerAxis(0))
    with pytest.raises(RangeError, match="a zero point for each channel"):
        requantize_params(1.0, 0, apart)
    shared = QuantParams(np.ones(2), np.array([5, 5]), -128, 127, PerAxis(0))
    assert requantize_params(1.0, 0, shared).zero_point == 5
    with pytest.raises(RangeError, match="not finite: check the scales"):
        requantize_params(float("inf"), 0, output())
    with pytest.raises(RangeError, match="too large: check the scales"):
        requantize_params(2.0**28, 0, output(0.25))
