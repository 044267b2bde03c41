"""Biases and masks in steps of the scores: ties, masks, ranges, and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import ivit_shiftmax, ivit_softmax_params
from vitq.numerics.nonlinear import SoftmaxParams, int_softmax, softmax_params
from vitq.numerics.offset import (
    HIDDEN,
    MASKED,
    OFFSET_LIMIT,
    REACH,
    int_offset,
    masked,
    offset_codes,
)
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import SCORE_LIMIT, code_params, shiftmax_codes

SMALLEST_STEP = 16 * np.log(2) / REACH
LOWEST_FLOATS = [-np.inf, np.finfo(np.float32).min, -1e9]


def test_constants_are_as_documented() -> None:
    assert (float(MASKED), OFFSET_LIMIT, REACH, HIDDEN) == (-32768, 2**28, 2**26, 3 * 2**26)


def test_ties_go_to_even() -> None:
    value = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.75], np.float32)
    np.testing.assert_array_equal(offset_codes(value, 1.0), [0, 2, 2, 0, -2, 1])
    np.testing.assert_array_equal(offset_codes(value, 0.5), [1, 3, 5, -1, -3, 2])


def test_masks_become_one_finite_value() -> None:
    found = masked(np.array([*LOWEST_FLOATS, -100.0, 3.0]))
    np.testing.assert_array_equal(found, np.float32([MASKED, MASKED, MASKED, -100, 3]))
    assert found.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_mask_is_refused(bad: float) -> None:
    with pytest.raises(VitqError, match="added to attention scores holds NaN or"):
        masked(np.array([0.0, bad]))


def test_a_mask_that_no_limit_cuts_is_exact() -> None:
    np.testing.assert_array_equal(offset_codes(np.float32([-100]), 1e-5), [-10_000_000])


def test_a_bias_beyond_the_limit_is_refused() -> None:
    assert offset_codes(np.float64([OFFSET_LIMIT]), 1.0)[0] == OFFSET_LIMIT
    for value in ([OFFSET_LIMIT + 1], [0, OFFSET_LIMIT + 1]):
        with pytest.raises(RangeError, match=r"a bias of .* at a score step of 1"):
            offset_codes(np.float64(value), 1.0)


def test_a_step_that_is_too_small_for_masks_is_refused() -> None:
    offset_codes(masked(np.array([-np.inf])), SMALLEST_STEP)
    for mask in ([-np.inf], [-np.inf, 0.0]):
        with pytest.raises(RangeError, match="too small for a mask"):
            offset_codes(masked(np.array(mask)), SMALLEST_STEP * (1 - 1e-9))
    offset_codes(np.array([3.0]), SMALLEST_STEP / 2)  # no mask, no limit
    lowest = np.array([-OFFSET_LIMIT * 2.0**-40])  # exact, and so not cut
    assert offset_codes(lowest, 2.0**-40).tolist() == [-OFFSET_LIMIT]


@given(
    st.floats(SMALLEST_STEP, 2e-5),
    st.lists(st.integers(-REACH, REACH), min_size=2, max_size=9),
    st.integers(0, 2**32 - 1),
)
def test_what_is_hidden_weighs_nothing_whatever_the_scores(
    step: float, scores: list[int], seed: int
) -> None:
    """All families, scores up to what is proven, the smallest steps included."""
    x = np.array([scores])
    hidden = np.random.default_rng(seed).random(x.shape) < 0.5
    hidden[0, 0] = False
    mask = np.where(hidden, masked(np.array(-np.inf)), np.float32(0))
    y = int_offset(x, offset_codes(mask, step))
    assert np.abs(y).max() <= SCORE_LIMIT
    out = QuantParams(np.float32(1 / 255), np.int32(0), 0, 255)
    wide = softmax_params(Nonlinear.VITQ, step, out)
    assert isinstance(wide, SoftmaxParams)
    for codes in (
        shiftmax_codes(y, code_params(step)),
        int_softmax(y, wide),
        ivit_shiftmax(y, ivit_softmax_params(max(step, 1e-6))),
    ):
        assert not codes[hidden].any()
    shown = shiftmax_codes(x[~hidden].reshape(1, -1), code_params(step))
    np.testing.assert_array_equal(shiftmax_codes(y, code_params(step))[~hidden], shown[0])


def test_the_gap_is_as_large_as_it_must_be() -> None:
    """Half of it is not: scores at both ends of +-REACH, a step at the limit."""
    codes = shiftmax_codes(np.array([[-REACH, REACH - OFFSET_LIMIT]]), code_params(SMALLEST_STEP))
    assert codes[0, 1] == 0
    near = np.array([[0, -REACH // 2]])
    assert shiftmax_codes(near, code_params(SMALLEST_STEP))[0, 1] > 0


def test_rows_that_are_masked_as_a_whole_are_those_of_the_scores() -> None:
    x = np.array([[5, -700, 300]])
    y = int_offset(x, offset_codes(masked(np.full((1, 3), -np.inf)), 1e-3))
    p = code_params(1e-3)
    np.testing.assert_array_equal(shiftmax_codes(y, p), shiftmax_codes(x, p))


def test_three_masks_in_a_row_stay_in_range() -> None:
    x = np.array([-(2**22), 2**22])
    for _ in range(3):
        x = int_offset(x, offset_codes(masked(np.array([-np.inf, 0.0])), 1e-6))
    assert np.abs(x).max() <= SCORE_LIMIT
