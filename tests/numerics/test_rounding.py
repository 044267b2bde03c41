"""The named roundings against exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.rounding import Rounding, round_float, shift_right


def rounded(value: Fraction, rounding: Rounding) -> int:
    """Round a fraction by the definition of the rule."""
    below = math.floor(value)
    rest = value - below
    if rounding is Rounding.FLOOR or rest < Fraction(1, 2):
        return below
    if rest > Fraction(1, 2) or rounding is Rounding.HALF_UP:
        return below + 1
    if rounding is Rounding.HALF_AWAY:
        return below + 1 if value > 0 else below
    return below + below % 2


TIES = [
    (Rounding.HALF_EVEN, [-2, -2, 0, 0, 2, 2]),
    (Rounding.HALF_AWAY, [-3, -2, -1, 1, 2, 3]),
    (Rounding.HALF_UP, [-2, -1, 0, 1, 2, 3]),
    (Rounding.FLOOR, [-3, -2, -1, 0, 1, 2]),
]


@pytest.mark.parametrize(("rounding", "expected"), TIES)
def test_round_float_ties(rounding: Rounding, expected: list[int]) -> None:
    """k + 0.5, negative too."""
    result = round_float(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), rounding)
    assert result.dtype == np.int64
    assert result.tolist() == expected


@pytest.mark.parametrize(("rounding", "expected"), TIES)
def test_shift_right_ties(rounding: Rounding, expected: list[int]) -> None:
    """The same ties as integers over 2 and over 2**20."""
    halves = np.array([-5, -3, -1, 1, 3, 5])
    assert shift_right(halves, 1, rounding).tolist() == expected
    assert shift_right(halves << 19, 20, rounding).tolist() == expected


def test_round_float_default_is_onnx() -> None:
    """Half to even, as QuantizeLinear; shapes are kept."""
    x = np.array([[0.5, 1.5], [2.5, -0.5]])
    assert round_float(x).tolist() == [[0, 2], [2, 0]]
    assert round_float(np.array(3.5)) == 4


@settings(deadline=None)
@given(st.integers(-(2**50), 2**50), st.integers(0, 12), st.sampled_from(Rounding))
def test_round_float_is_exact(numerator: int, bits: int, rounding: Rounding) -> None:
    """Dyadic floats, for which adding one half is exact."""
    value = Fraction(numerator >> 12, 2**bits)
    assert round_float(np.array(float(value)), rounding) == rounded(value, rounding)


@settings(deadline=None)
@given(st.floats(-(2.0**62), 2.0**62))
def test_half_even_is_exact_for_every_float(value: float) -> None:
    """The rule that the project uses for floats, over all of them."""
    assert round_float(np.array(float(value))) == round(Fraction(value))
    assert round_float(np.array(float(value)), Rounding.FLOOR) == math.floor(Fraction(value))


@settings(deadline=None)
@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 62), st.sampled_from(Rounding))
def test_shift_right_is_exact(x: int, shift: int, rounding: Rounding) -> None:
    """Any integer, any shift."""
    expected = rounded(Fraction(x, 2**shift), rounding)
    assert shift_right(np.array(x), shift, rounding) == expected


@pytest.mark.parametrize("rounding", list(Rounding))
def test_shift_right_broadcasts(rounding: Rounding) -> None:
    """A shift for each channel, extremes and shift 0 included."""
    x = np.array([[2**62 - 1, -(2**62) + 1, 7], [-7, 2**61, -(2**61)]])
    shift = np.array([62, 0, 1])
    result = shift_right(x, shift, rounding)
    expected = [
        [rounded(Fraction(int(v), 2 ** int(s)), rounding) for v, s in zip(row, shift, strict=True)]
        for row in x
    ]
    assert result.tolist() == expected


def test_names() -> None:
    """The spelling that recipes and metadata carry."""
    assert [str(rule) for rule in Rounding] == ["half_even", "half_away", "half_up", "floor"]
