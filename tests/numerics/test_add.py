"""Residual addition against Python integers and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.add import MULTIPLIER_BITS, SHIFT_LIMIT, AddParams, add_params, int_add
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import QuantParams

INT32_MAX = 2**31 - 1
scales = st.floats(2.0**-14, 2.0**4)
codes16 = hnp.arrays(np.int16, (7,))


def output(scale: float, zero_point: int = 0, bits: int = 16) -> QuantParams:
    """Signed parameters of one width."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return QuantParams.per_tensor(scale, zero_point, low, high)


@settings(deadline=None)
@given(codes16, codes16, scales, scales, scales, st.integers(-100, 100))
def test_formula(
    a: IntArray, b: IntArray, a_scale: float, b_scale: float, scale: float, zero: int
) -> None:
    """The module's formula with Python integers, zero points on all sides."""
    try:
        p = add_params(a_scale, zero, b_scale, -zero, output(scale, zero))
    except RangeError:
        assert max(a_scale, b_scale) / scale >= 2.0 ** (MULTIPLIER_BITS - 1)
        return
    result = int_add(a, b, p)
    for x, y, z in zip(a.tolist(), b.tolist(), result.tolist(), strict=True):
        total = (x - zero) * p.a_multiplier + (y + zero) * p.b_multiplier
        rounded = (total + 2 ** (p.shift - 1)) // 2**p.shift
        assert z == min(max(rounded + zero, p.qmin), p.qmax)


@settings(deadline=None)
@given(codes16, codes16, scales, scales)
def test_error_against_exact_sum(a: IntArray, b: IntArray, a_scale: float, b_scale: float) -> None:
    """Half a step for the rounding, and 2**-(s+1) of each code for the multipliers."""
    out = output(4 * (a_scale + b_scale))
    p = add_params(a_scale, 0, b_scale, 0, out)
    scale = Fraction(float(out.scale))
    for x, y, z in zip(a.tolist(), b.tolist(), int_add(a, b, p).tolist(), strict=True):
        exact = (x * Fraction(a_scale) + y * Fraction(b_scale)) / scale
        bound = Fraction(1, 2) + Fraction(abs(x) + abs(y), 2 ** (p.shift + 1))
        assert abs(z - exact) <= bound + Fraction(1, 10**9)


@settings(deadline=None)
@given(codes16, st.floats(0.001, 100))
def test_input_of_the_output_scale_passes(a: IntArray, b_scale: float) -> None:
    """Exactly, on either side, whatever the other's scale."""
    out = output(0.25)
    p = add_params(0.25, 0, b_scale, 0, out)
    assert p.a_multiplier == 2**p.shift
    zeros = np.zeros(7, np.int16)
    np.testing.assert_array_equal(int_add(a, zeros, p), a)
    p = add_params(b_scale, 0, 0.25, 0, out)
    np.testing.assert_array_equal(int_add(zeros, a, p), a)


@settings(deadline=None)
@given(scales, scales, scales)
def test_sum_of_16_bit_codes_stays_in_int32(a_scale: float, b_scale: float, scale: float) -> None:
    """Multipliers of 15 bits; with zero points of 0 the rounding constant fits too."""
    try:
        p = add_params(a_scale, 0, b_scale, 0, output(scale))
    except RangeError:
        return
    assert 0 <= p.a_multiplier <= 2**MULTIPLIER_BITS
    assert 0 <= p.b_multiplier <= 2**MULTIPLIER_BITS
    assert 1 <= p.shift <= SHIFT_LIMIT
    multipliers = p.a_multiplier + p.b_multiplier
    assert 65535 * multipliers <= INT32_MAX
    assert 2**15 * multipliers + 2 ** (p.shift - 1) <= INT32_MAX


def test_ties_go_up() -> None:
    """(a + b) / 2, negative ties too."""
    p = add_params(0.5, 0, 0.5, 0, output(1.0))
    a = np.array([-3, -2, -1, 0, 1, 2])
    assert int_add(a, np.zeros(6, np.int64), p).tolist() == [-1, -1, 0, 0, 1, 1]


def test_clamp_and_broadcast() -> None:
    """A position table is added to a batch; sums clamp at the bounds."""
    p = add_params(1.0, 0, 1.0, 0, output(1.0, bits=8))
    a = np.array([[[100, -100], [1, 2]], [[3, 4], [127, -128]]])
    result = int_add(a, np.array([[100, -100], [10, 20]]), p)
    assert result.tolist() == [[[127, -128], [11, 22]], [[103, -96], [127, -108]]]


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    out = QuantParams.per_tensor(1.0, 7, -50, 50)
    p = add_params(1.0, 3, 0.5, -5, out)
    assert tuple(p) == (3, -5, 8192, 4096, 13, 7, -50, 50)
    assert AddParams._fields == (
        "a_zero_point",
        "b_zero_point",
        "a_multiplier",
        "b_multiplier",
        "shift",
        "zero_point",
        "qmin",
        "qmax",
    )


def test_factor_too_large() -> None:
    """An output that is 2**14 times finer than an input."""
    with pytest.raises(RangeError, match="too large: check the scales"):
        add_params(2.0**14, 0, 1.0, 0, output(1.0))


def test_the_rounding_constant_is_at_most_two_to_the_29() -> None:
    p = add_params(2.0**-40, 0, 2.0**-41, 0, output(1.0))
    assert p.shift == SHIFT_LIMIT == 30
