"""Tables of 8-bit codes."""

import numpy as np
import pytest

from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.qparams import QuantParams, quantize
from vitq.numerics.table import LEVELS, TableParams, int_lut, pixel_table


@pytest.mark.parametrize(("qmin", "qmax", "zero"), [(-128, 127, 5), (0, 255, 7), (-100, 50, -100)])
def test_codes_begin_at_0(qmin: int, qmax: int, zero: int) -> None:
    """The same real values as the quantizer's own codes, ties and clamps included."""
    out = QuantParams.per_tensor(0.5, zero, qmin, qmax)
    real = np.stack([np.arange(LEVELS) / 4 - 32, np.arange(LEVELS)[::-1] * 2.0]).astype(np.float32)
    table, moved = pixel_table(real, out)
    assert table.dtype == np.uint8 and table.shape == (2, LEVELS)
    assert (moved.qmin, moved.qmax, int(moved.zero_point)) == (0, 255, zero - qmin)
    assert float(moved.scale) == 0.5
    np.testing.assert_array_equal(table.astype(int) + qmin, quantize(real, out))
    centred = table.astype(int) - int(moved.zero_point)
    np.testing.assert_array_equal(centred, quantize(real, out).astype(int) - zero)


def test_look_up() -> None:
    """Each channel has a table of its own."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (3, LEVELS)).astype(np.uint8)
    x = rng.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    result = int_lut(x, table)
    assert result.dtype == np.uint8
    for index in np.ndindex(*x.shape):
        assert result[index] == table[index[1], x[index]]


def test_one_table_is_for_all_whatever_the_axis() -> None:
    """The first and the last entry, of codes below 0."""
    table = np.arange(LEVELS, dtype=np.uint8)[None]
    x = np.array([-128, 5, 127])
    for axis in (0, 3):
        assert int_lut(x, table, TableParams(axis, -128)).tolist() == [0, 133, 255]


@pytest.mark.parametrize(("qmin", "qmax"), [(0, 256), (-128, 128)])
def test_wider_codes_are_refused(qmin: int, qmax: int) -> None:
    out = QuantParams.per_tensor(1.0, 0, qmin, qmax)
    with pytest.raises(VitqError, match=f"codes from {qmin} to {qmax} do not fit into 8 bits"):
        pixel_table(np.zeros((1, LEVELS), np.float32), out)


@pytest.mark.parametrize("code", [-129, 128])
def test_a_code_without_an_entry_is_refused(code: int) -> None:
    table = np.zeros((1, LEVELS), np.int8)
    with pytest.raises(RangeError, match="a code is outside of its table of 256 from -128 on"):
        int_lut(np.array([0, code]), table, TableParams(0, -128))
