"""Powers and logarithms of tables: their error, what is exact, their constants."""

import math

import numpy as np

from vitq.numerics import powers
from vitq.numerics.powers import ONE


def test_powers_and_logarithms() -> None:
    """Within `powers.MAX_ERROR` of each result, whole octaves exact."""
    t = np.arange(0, 3 << powers.EXPONENT_BITS, 99991, dtype=np.int64)
    exact = 2.0 ** (-t / 2**powers.EXPONENT_BITS)
    found = powers.inverse_power(t) / powers.ONE
    assert np.abs(found - exact).max() <= powers.MAX_ERROR
    whole = np.arange(31, dtype=np.int64)
    octaves = powers.inverse_power(whole << powers.EXPONENT_BITS)
    np.testing.assert_array_equal(octaves, powers.ONE >> whole)
    z = np.append(np.linspace(powers.ONE, 2 * powers.ONE, 9999).astype(np.int64), 2 * powers.ONE)
    logarithm = powers.log2(z) / 2**powers.EXPONENT_BITS
    assert np.abs(logarithm - np.log2(z / powers.ONE)).max() <= powers.MAX_ERROR
    assert logarithm[0] == 0 and logarithm[-1] == 1


def test_constants_are_as_documented() -> None:
    assert (ONE, powers.EXPONENT_BITS, powers.MAX_ERROR) == (2**30, 28, 2.0**-25)


def test_each_root_is_that_of_the_one_before_rounded() -> None:
    before = ONE >> 1
    for root in powers.ROOTS:
        assert root == (math.isqrt(4 * before * ONE) + 1) >> 1
        before = root
    assert len(powers.ROOTS) == 28


def test_a_square_of_exactly_2_is_the_next_bit() -> None:
    """The nearest to sqrt(2) squares to 2 after rounding: one half, and no bit behind it."""
    assert powers.log2(np.array([math.isqrt(2 * ONE * ONE) + 1])).tolist() == [2**27]
