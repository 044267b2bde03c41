"""The two ranges of a twin quantizer, as quantizers of their own."""

import numpy as np
import pytest

from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.numerics.twin import Twin, check_twin, coarse_range, fine_range, threshold

OUT = QuantParams.per_tensor(0.125, -90, -128, 127)
TWIN = Twin(split=-60, shift=3)


def test_ranges() -> None:
    """187 fine codes are above the split, which is 30 steps from 0: 23 whole coarse steps."""
    coarse = coarse_range(TWIN, OUT)
    assert (float(coarse.scale), int(coarse.zero_point)) == (1.0, 0)
    assert (coarse.qmin, coarse.qmax) == (0, 23)
    fine = fine_range(TWIN, OUT)
    assert (float(fine.scale), int(fine.zero_point)) == (0.125, -90)
    assert (fine.qmin, fine.qmax) == (-128, -60)
    assert threshold(TWIN, OUT) == np.float32(3.75)
    assert threshold(TWIN, OUT).dtype == np.float32


def test_ptq4vit_splits_at_zero() -> None:
    assert threshold(Twin(-90, 1), OUT) == 0


def test_codes_must_be_a_byte_s() -> None:
    wide = QuantParams.per_tensor(0.125, 0, -129, 127)
    with pytest.raises(VitqError, match=r"codes from -129 to 127: choose a byte's, -128 to 127"):
        check_twin(Twin(0, 0), wide)
    check_twin(Twin(0, 0), QuantParams.per_tensor(0.125, 0, 0, 255))


@pytest.mark.parametrize("split", [-129, 127])
def test_a_split_has_codes_on_both_sides(split: int) -> None:
    with pytest.raises(VitqError, match=rf"splits at {split}: choose -128 to 126"):
        check_twin(Twin(split, 0), OUT)


@pytest.mark.parametrize("twin", [Twin(-128, 0), Twin(126, 7)])
def test_the_outermost(twin: Twin) -> None:
    check_twin(twin, OUT)


@pytest.mark.parametrize("shift", [-1, 8])
def test_shifts(shift: int) -> None:
    with pytest.raises(VitqError, match=rf"shift is {shift}: choose 0 to 7"):
        check_twin(Twin(0, shift), OUT)
