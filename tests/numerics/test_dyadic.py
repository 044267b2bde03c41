"""Dyadic numbers and requantization against exact fractions and Python integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import (
    ACC_LIMIT,
    SHIFT_MAX,
    SHIFT_MIN,
    Dyadic,
    addend,
    requantize,
    rescale,
    to_dyadic,
    to_shared_dyadic,
)
from vitq.numerics.errors import RangeError

INT64_LIMIT = 2**63 - 1
EXTREMES = [0, 1, -1, 2, -2, ACC_LIMIT, -ACC_LIMIT, -(2**31)]
accumulators = st.integers(-(2**31), 2**31 - 1)
factors = st.floats(2.0**-16, 2.0**29, exclude_max=True)


def half_up(value: Fraction) -> int:
    """Round half towards plus infinity."""
    return math.floor(value + Fraction(1, 2))


def real(dyadic: Dyadic, index: int) -> Fraction:
    """Exact value of one element."""
    return Fraction(int(dyadic.multiplier[index]), 2 ** int(dyadic.shift[index]))


@settings(deadline=None)
@given(factors, st.sampled_from([1, -1]))
def test_relative_error(factor: float, sign: int) -> None:
    """Within 2**-31 of every factor of at least 2**-16, and 31 bits at most."""
    dyadic = to_dyadic(sign * factor)
    value = Fraction(int(dyadic.multiplier), 2 ** int(dyadic.shift))
    assert abs(value - sign * Fraction(factor)) <= Fraction(factor) / 2**31
    assert 2**30 <= abs(int(dyadic.multiplier)) < 2**31
    assert SHIFT_MIN <= int(dyadic.shift) <= SHIFT_MAX
    assert dyadic.multiplier.dtype == dyadic.shift.dtype == np.int32


@settings(deadline=None)
@given(st.floats(0, 2.0**-16))
def test_small_factors(factor: float) -> None:
    """Under 2**-16 the shift is at its limit and the error at most half of 2**-46."""
    dyadic = to_dyadic(factor)
    value = Fraction(int(dyadic.multiplier), 2 ** int(dyadic.shift))
    assert abs(value - Fraction(factor)) <= Fraction(1, 2**47)


def test_multiplier_is_rounded_half_to_even() -> None:
    """Ties of the multiplier, and the carry into one more bit."""
    ties = np.array([2**30 + 0.5, 2**30 + 1.5]) / 2.0**31
    assert to_dyadic(ties).multiplier.tolist() == [2**30, 2**30 + 2]
    carried = to_dyadic(np.nextafter(1.0, 0.0))
    assert (int(carried.multiplier), int(carried.shift)) == (2**30, 30)


@pytest.mark.parametrize("exponent", [-46, -31, -16, -1, 0, 1, 14, 28])
def test_powers_of_two_are_exact(exponent: int) -> None:
    """Their property `real` says the same."""
    assert to_dyadic(2.0**exponent).real == 2.0**exponent
    assert to_dyadic(-(2.0**exponent)).real == -(2.0**exponent)


def test_zero_stays_zero() -> None:
    """Zero and everything that rounds to it."""
    dyadic = to_dyadic(np.array([0.0, -0.0, 2.0**-48, 1e-300]))
    assert dyadic.multiplier.tolist() == [0, 0, 0, 0]
    assert dyadic.shift.tolist() == [SHIFT_MIN] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    """The message names the remedy."""
    with pytest.raises(RangeError, match="not finite: check the scales"):
        to_dyadic(np.array([1.0, bad]))
    with pytest.raises(RangeError, match="not finite: check the scales"):
        to_shared_dyadic(np.array([1.0, bad]), 14)


def test_too_large() -> None:
    """The largest factor that fits, and the first that does not."""
    assert to_dyadic(2.0**29).real == 2.0**29
    with pytest.raises(RangeError, match=r"factor of 1\.07e\+09 is too large"):
        to_dyadic(np.array([0.5, -(2.0**30)]))
    assert to_shared_dyadic(np.array([2.0**12]), 14).real == 2.0**12
    with pytest.raises(RangeError, match=r"factor of 1\.64e\+04 is too large"):
        to_shared_dyadic(np.array([-(2.0**14)]), 14)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-100, 100)),
    st.integers(8, 20),
    st.integers(1, 46),
)
def test_shared_dyadic(values: FloatArray, bits: int, limit: int) -> None:
    """One shift; every multiplier is the nearest for it; the largest uses all its bits."""
    if bits < np.frexp(np.abs(values).max())[1] + 1:
        return
    dyadic = to_shared_dyadic(values, bits, limit)
    shift = int(dyadic.shift[0])
    assert set(dyadic.shift.tolist()) == {shift}
    assert SHIFT_MIN <= shift <= max(limit, SHIFT_MIN)
    assert np.abs(dyadic.multiplier).max() <= 2**bits
    for index, value in enumerate(values):
        assert abs(real(dyadic, index) - Fraction(value)) <= Fraction(1, 2 ** (shift + 1))
    if shift < limit and np.any(values):
        assert np.abs(dyadic.multiplier).max() >= 2 ** (bits - 1)


def test_shared_dyadic_of_zeros() -> None:
    """No factor at all still yields a valid shift."""
    dyadic = to_shared_dyadic(np.zeros(3), 14)
    assert dyadic.multiplier.tolist() == [0, 0, 0]
    assert np.all(dyadic.shift >= SHIFT_MIN)


@settings(deadline=None)
@given(accumulators, st.integers(-(2**31) + 1, 2**31 - 1), st.integers(SHIFT_MIN, SHIFT_MAX))
def test_rescale_is_one_half_up_rounding(acc: int, multiplier: int, shift: int) -> None:
    """Exact for every int32 accumulator and multiplier."""
    dyadic = Dyadic(np.array(multiplier, np.int32), np.array(shift, np.int32))
    result = rescale(np.array(acc, np.int32), dyadic)
    assert result.dtype == np.int64
    assert int(result) == half_up(Fraction(acc * multiplier, 2**shift))


def test_rescale_ties() -> None:
    """Ties go up, negative ones too."""
    half = to_dyadic(0.5)
    assert rescale(np.array([-5, -3, -1, 1, 3, 5]), half).tolist() == [-2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize("shift", [SHIFT_MIN, 31, SHIFT_MAX])
@pytest.mark.parametrize("multiplier", [2**31 - 1, -(2**31) + 1])
def test_rescale_extremes(multiplier: int, shift: int) -> None:
    """No product or rounding constant leaves int64."""
    dyadic = Dyadic(np.array(multiplier, np.int32), np.array(shift, np.int32))
    expected = [half_up(Fraction(acc * multiplier, 2**shift)) for acc in EXTREMES]
    assert rescale(np.array(EXTREMES), dyadic).tolist() == expected


@settings(deadline=None)
@given(
    hnp.arrays(np.int32, (3, 4)),
    hnp.arrays(np.float64, (4,), elements=factors),
    st.integers(-128, 127),
)
def test_channels_are_independent(acc: IntArray, factor: FloatArray, zero_point: int) -> None:
    """Splitting the channels never changes a bit."""
    together = requantize(acc, to_dyadic(factor), zero_point, -128, 127)
    for channel in range(4):
        alone = requantize(acc[:, channel], to_dyadic(factor[channel]), zero_point, -128, 127)
        np.testing.assert_array_equal(together[:, channel], alone)


def test_requantize_clamps_after_the_zero_point() -> None:
    """Bounds are inclusive and apply to the code, not to the centred value."""
    result = requantize(np.array([-1000, -3, 0, 3, 1000]), to_dyadic(1.0), 5, 0, 15)
    assert result.tolist() == [0, 2, 5, 8, 15]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(accumulators, accumulators, st.floats(2.0**-40, 2.0**20)), min_size=1, max_size=4
    ),
    st.integers(-(2**15), 2**15 - 1),
)
def test_addend_identity(rows: list[tuple[int, int, float]], zero_point: int) -> None:
    """Bias, rounding constant and zero point in one 64-bit addition."""
    totals = [row[0] for row in rows]
    bias = np.array([row[1] for row in rows])
    acc = np.array(totals) - bias  # so that acc + bias is an int32
    keep = np.abs(acc) <= ACC_LIMIT
    acc, bias = acc[keep], bias[keep]
    dyadic = to_dyadic(np.array([row[2] for row in rows])[keep])
    constant = addend(bias, dyadic, zero_point)
    folded = (acc * dyadic.multiplier.astype(np.int64) + constant) >> dyadic.shift
    np.testing.assert_array_equal(folded, rescale(acc + bias, dyadic) + zero_point)


def test_addend_stays_in_int64() -> None:
    """The worst constant, and the worst sum with the product that it is added to."""
    for bias in (ACC_LIMIT, -(2**31)):
        for zero_point in (-(2**15), 2**15 - 1):
            for multiplier in (2**31 - 1, -(2**31) + 1):
                dyadic = Dyadic(np.array([multiplier], np.int32), np.array([SHIFT_MAX], np.int32))
                exact = bias * multiplier + 2**45 + (zero_point << SHIFT_MAX)
                assert abs(exact) <= INT64_LIMIT
                assert addend(np.array([bias]), dyadic, zero_point).tolist() == [exact]


def test_shared_factors_of_nothing_have_the_largest_shift() -> None:
    shared = to_shared_dyadic(np.zeros(2), bits=10, shift_limit=30)
    assert shared.multiplier.tolist() == [0, 0] and shared.shift.tolist() == [30, 30]
