"""The integer mean against Python integers and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.pooling import MeanParams, int_mean, mean_params
from vitq.numerics.qparams import QuantParams

scales = st.floats(2.0**-14, 2.0**4)
tensors = hnp.arrays(
    st.sampled_from([np.int8, np.uint8, np.int16, np.uint16]),
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
)


def output(scale: float, zero_point: int = 0) -> QuantParams:
    """Signed 16-bit parameters."""
    return QuantParams.per_tensor(scale, zero_point, -(2**15), 2**15 - 1)


@settings(deadline=None)
@given(tensors, st.integers(0, 2), scales, scales, st.integers(-200, 200), st.integers(-99, 99))
def test_formula(
    x: IntArray, axis: int, scale: float, out_scale: float, x_zero: int, zero: int
) -> None:
    """The module's formula with Python integers, over any axis and type."""
    length = x.shape[axis]
    p = mean_params(scale, x_zero, length, output(out_scale, zero))
    result = int_mean(x, p, axis)
    columns = np.moveaxis(x, axis, -1).reshape(-1, length).tolist()
    assert result.shape == x.shape[:axis] + x.shape[axis + 1 :]
    for codes, code in zip(columns, result.reshape(-1).tolist(), strict=True):
        total = sum(value - x_zero for value in codes)
        rounded = (total * p.multiplier + 2 ** (p.shift - 1)) // 2**p.shift
        assert code == min(max(rounded + zero, p.qmin), p.qmax)


@settings(deadline=None)
@given(hnp.arrays(np.int16, (7, 2)), scales, st.integers(-9, 9))
def test_error_against_the_exact_mean(x: IntArray, scale: float, x_zero: int) -> None:
    """Half a step, and the multiplier's relative 2**-31."""
    out = output(4 * scale)
    result = int_mean(x, mean_params(scale, x_zero, 7, out), 0)
    step = Fraction(scale) / Fraction(float(out.scale))
    for column, code in zip(x.T.tolist(), result.tolist(), strict=True):
        exact = Fraction(sum(v - x_zero for v in column), 7) * step
        assert abs(code - exact) <= Fraction(1, 2) + abs(exact) * Fraction(1, 2**30)


def test_ties_go_up() -> None:
    """The mean of two codes, on both sides of zero."""
    x = np.array([[-3, -2, 0, 1, 2], [0, -3, -1, 0, 1]], np.int8)
    p = mean_params(1.0, 0, 2, output(1.0))
    assert (p.multiplier, p.shift) == (2**30, 31)
    assert int_mean(x, p, 0).tolist() == [-1, -2, 0, 1, 2]


def test_extremes_do_not_wrap() -> None:
    """The largest sum that fits into int32: 65,535 tokens of 32,767."""
    x = np.full((65535, 1), 2**15 - 1, np.int16)
    p = mean_params(1.0, 0, len(x), output(1.0))
    assert int_mean(x, p, 0).tolist() == [2**15 - 1]
    assert int_mean(-x, p, 0).tolist() == [-(2**15) + 1]
    one = np.array([[0, 255]], np.uint8)
    assert int_mean(one, mean_params(1.0, 255, 1, output(1.0)), 0).tolist() == [-255, 0]


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    p = mean_params(1.0, 3, 4, QuantParams.per_tensor(0.5, 7, -50, 50))
    assert tuple(p) == (2**30, 31, 3, 7, -50, 50)
    assert MeanParams._fields == (
        "multiplier",
        "shift",
        "x_zero_point",
        "zero_point",
        "qmin",
        "qmax",
    )


def test_refuses() -> None:
    with pytest.raises(RangeError, match="a mean over 0 values: at least 1 is needed"):
        mean_params(1.0, 0, 0, output(1.0))
    with pytest.raises(RangeError, match="too large: check the scales"):
        mean_params(2.0**30, 0, 1, output(1.0))
    with pytest.raises(RangeError, match="not finite: check the scales"):
        mean_params(float("nan"), 0, 1, output(1.0))
