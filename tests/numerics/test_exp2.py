"""Powers of two, over all 2**15 fractions."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.exp2 import COEFFICIENTS, FRACTION_BITS, MAX_ERROR, ONE, exp2_fraction, mulhrs

FRACTIONS = np.arange(2**FRACTION_BITS)
INT16 = st.integers(-(2**15), 2**15 - 1)


@settings(deadline=None)
@given(INT16, INT16)
def test_mulhrs_is_the_instruction(a: int, b: int) -> None:
    """HALF_UP of a b / 2**15, as vpmulhrsw and sqrdmulh compute it."""
    exact = Fraction(a * b, 2**15) + Fraction(1, 2)
    result = int(mulhrs(np.array(a, np.int16), np.array(b, np.int16)))
    assert result == exact.numerator // exact.denominator
    assert result == ((a * b >> 14) + 1) >> 1  # vpmulhrsw
    assert result == (2 * a * b + 2**15) >> 16  # sqrdmulh


def test_mulhrs_ties_and_broadcast() -> None:
    """Ties go up, negative ones too."""
    a = np.array([[-3], [-1], [1], [3]])
    assert mulhrs(a, np.array([2**14, 0])).tolist() == [[-1, 0], [0, 0], [1, 0], [2, 0]]


def test_error_bound() -> None:
    """Within MAX_ERROR for every fraction, and not twice as good as that."""
    exact = ONE * 2.0 ** (-FRACTIONS / 2.0**FRACTION_BITS)
    error = np.abs(exp2_fraction(FRACTIONS) - exact).max() / ONE
    assert MAX_ERROR / 2 < error < MAX_ERROR


def test_documented_fit() -> None:
    """The cubic of the docstring and its error; the coefficients are its rounded ones."""
    fit = [0.99994648, -0.69137342, 0.23097554, -0.03960212]
    f = np.linspace(0, 1, 10001)
    assert np.abs(np.polyval(fit[::-1], f) - 2.0**-f).max() < 5.4e-5
    assert COEFFICIENTS[1:] == tuple(round(c * ONE) for c in fit[1:])
    assert COEFFICIENTS[0] == ONE


def test_range_and_order() -> None:
    """From ONE down, never rising by more than a step, never under ONE / 2 - 16."""
    y = exp2_fraction(FRACTIONS)
    assert y[0] == ONE == y.max()
    assert y.min() > ONE / 2 - 16
    assert np.diff(y).max() <= 1


def test_every_intermediate_is_int16() -> None:
    """Horner's rule, step by step, with the instruction's operands."""
    c0, c1, c2, c3 = COEFFICIENTS
    y = np.full(FRACTIONS.shape, c3)
    for c in (c2, c1, c0):
        y = c + mulhrs(y, FRACTIONS)
        assert y.min() >= -(2**15)
        assert y.max() <= 2**15 - 1
    np.testing.assert_array_equal(y, exp2_fraction(FRACTIONS))


def test_one_becomes_255() -> None:
    """A rounding shift of 7 takes ONE to the largest 8-bit code, not beyond."""
    codes = (exp2_fraction(FRACTIONS) + 64) >> 7
    assert codes.max() == codes[0] == 255
