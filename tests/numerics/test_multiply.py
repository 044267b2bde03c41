"""Product of two tensors against Python integers and exact fractions."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.multiply import (
    MultiplyAddParams,
    MultiplyParams,
    int_multiply,
    int_multiply_add,
    multiply_add_params,
    multiply_params,
)
from vitq.numerics.qparams import QuantParams

codes16 = hnp.arrays(np.int16, (5,))
scales = st.floats(2.0**-14, 1.0)
OUT = QuantParams.per_tensor(0.25, 3, -100, 100)


@settings(deadline=None)
@given(codes16, codes16, scales, scales, st.integers(-9, 9))
def test_formula(a: IntArray, b: IntArray, a_scale: float, b_scale: float, zero: int) -> None:
    """The module's formula with Python integers, and half a step off the exact product."""
    p = multiply_params(a_scale, zero, b_scale, -zero, OUT)
    scale = Fraction(float(OUT.scale))
    for x, y, z in zip(a.tolist(), b.tolist(), int_multiply(a, b, p).tolist(), strict=True):
        product = (x - zero) * (y + zero)
        rounded = (product * p.multiplier + 2 ** (p.shift - 1)) // 2**p.shift
        assert z == min(max(rounded + 3, -100), 100)
        exact = product * Fraction(a_scale) * Fraction(b_scale) / scale
        if abs(exact) < 97:
            assert abs(z - 3 - exact) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_ties_go_up_and_signs_are_kept() -> None:
    """Half steps of both signs; a constant of -1 is an exact negation."""
    p = multiply_params(0.5, 0, 0.25, 0, QuantParams.per_tensor(0.25, 0, -100, 100))
    a, b = np.array([-3, -1, 1, 3, -3, 3]), np.array([1, 1, 1, 1, -1, -1])
    assert int_multiply(a, b, p).tolist() == [-1, 0, 1, 2, 2, -1]
    minus = np.array(-8191)
    p = multiply_params(0.37, 0, 1 / 8191, 0, QuantParams.per_tensor(0.37, 0, -(2**15), 2**15 - 1))
    every = np.arange(-(2**15) + 1, 2**15)
    np.testing.assert_array_equal(int_multiply(every, minus, p), -every)


def test_the_largest_codes_and_broadcasting() -> None:
    """2**30 is exact; both operands may be broadcast."""
    out = QuantParams.per_tensor(2.0**15, 0, -(2**15), 2**15 - 1)
    p = multiply_params(1.0, 0, 1.0, 0, out)
    a = np.full((2, 1, 3), -(2**15))
    b = np.array([[-(2**15)], [2**15 - 1]])
    result = int_multiply(a, b, p)
    assert result.shape == (2, 2, 3)
    assert result[:, 0].tolist() == [[2**15 - 1] * 3] * 2 and result[0, 1, 0] == -(2**15) + 1


@settings(deadline=None)
@given(st.lists(codes16, min_size=4, max_size=4), scales, st.integers(-9, 9))
def test_a_sum_of_products_is_rounded_once(factors: list[IntArray], step: float, zero: int) -> None:
    """With Python integers."""
    step /= 2**12
    zeros = (zero, 0, -zero, 1)
    p = multiply_add_params(step, zeros, OUT)
    found = int_multiply_add(*factors, p)
    for row, result in zip(zip(*(x.tolist() for x in factors), strict=True), found, strict=True):
        a, b, c, d = (x - z for x, z in zip(row, zeros, strict=True))
        rounded = ((a * b + c * d) * p.multiplier + 2 ** (p.shift - 1)) // 2**p.shift
        assert result == min(max(rounded + 3, -100), 100)


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    p = multiply_params(1.0, 3, 0.5, -5, QuantParams.per_tensor(1.0, 7, -50, 50))
    assert p == MultiplyParams(3, -5, 2**30, 31, 7, -50, 50)
    q = multiply_add_params(0.5, (1, 2, 3, 4), QuantParams.per_tensor(1.0, 7, -50, 50))
    assert q == MultiplyAddParams(1, 2, 3, 4, 2**30, 31, 7, -50, 50)
