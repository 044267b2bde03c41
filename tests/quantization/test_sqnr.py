"""Decibels of known powers."""

import numpy as np
import pytest

from vitq.quantization.run.sqnr import TINY, decibels, sqnr_db


@pytest.mark.parametrize(
    ("signal", "noise", "wanted"), [(1, 1, 0), (100, 1, 20), (1, 100, -20), (2, 1, 3.0103)]
)
def test_ratios_of_powers(signal: float, noise: float, wanted: float) -> None:
    assert decibels(signal, noise) == pytest.approx(wanted, abs=1e-4)


def test_an_error_that_counts_as_none() -> None:
    assert decibels(1.0, 1e-13, at_most=120.0) == 120
    assert decibels(1.0, 1e-11, at_most=120.0) == pytest.approx(110)


def test_a_power_of_zero_is_a_number() -> None:
    assert decibels(1.0, 0.0) == pytest.approx(300)
    assert decibels(0.0, 1.0) == pytest.approx(-300)
    assert decibels(0.0, 0.0) == 0 and TINY == 1e-30


def test_sqnr_of_a_known_noise() -> None:
    """The error is summed in double precision: float32 would lose a step of 2**-25."""
    signal = np.array([[3.0, 4.0]])
    assert sqnr_db(signal, signal + np.array([[0.5, 0.0]])) == pytest.approx(20.0)
    one = np.ones(4, np.float32)
    assert sqnr_db(one, one.astype(np.float64) + 2.0**-25) == pytest.approx(500 * np.log10(2))
