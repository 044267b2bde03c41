"""Exact products and accumulator bounds against Python integers."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.matmul import (
    centred_matmul,
    fits_accumulator,
    int_matmul,
    product_bound,
    product_scale,
    weight_bounds,
)

CODE_LIMIT = 2**17 - 1


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 3), st.data())
def test_product_is_exact(shape: tuple[int, int, int], data: st.DataObject) -> None:
    """Any shape, codes of 17 bits."""
    rows, inner, columns = shape
    codes = st.integers(-CODE_LIMIT, CODE_LIMIT)
    a = data.draw(hnp.arrays(np.int64, (2, rows, inner), elements=codes))
    b = data.draw(hnp.arrays(np.int64, (inner, columns), elements=codes))
    product = int_matmul(a, b)
    assert product.dtype == np.int64
    assert product.tolist() == (a.astype(object) @ b.astype(object)).tolist()


@pytest.mark.parametrize("terms", [1023, 1024, 1025, 1032, 1033])
def test_around_the_float32_limit(terms: int) -> None:
    """Sums near 2**24, odd ones too, and in any order of summation."""
    a = np.full((2, terms), -128, np.int8)
    a[1, ::2] = 127
    a[:, -1] = 1
    b = np.stack([np.full(terms, -128, np.int8), np.full(terms, 127, np.int8)])
    exact = a.astype(object) @ b.T.astype(object)
    assert int_matmul(a, b.T).tolist() == exact.tolist()
    assert int_matmul(a[:, ::-1], b.T[::-1]).tolist() == exact.tolist()


@pytest.mark.parametrize("terms", [599, 1033])
def test_odd_sums_beyond_float32(terms: int) -> None:
    """Between 2**24 and 2**25, where float32 has even integers only; in a stack of one row."""
    a, b = np.full((1, 1, terms), 255, np.uint8), np.full((terms, 1), 127, np.int8)
    assert int_matmul(a, b).tolist() == [[[terms * 255 * 127]]]


def test_unsigned_codes() -> None:
    """The magnitude of uint8 and of the most negative code is not lost to a wrapping negation."""
    a, b = np.full((1, 700), 255, np.uint8), np.full((700, 1), -128, np.int8)
    assert int_matmul(a, b).tolist() == [[-700 * 255 * 128]]


def test_longest_inner_dimension() -> None:
    """Half a million terms of 17 bits, where one bit more would be lost."""
    length = 2**19
    a = np.full((1, length), CODE_LIMIT)
    product = int_matmul(a, a.T)
    assert product.tolist() == [[length * CODE_LIMIT**2]]


def test_too_large_a_product() -> None:
    """Refused, as float64 could round."""
    limit = np.array([[2**26, 2**26]])
    assert int_matmul(limit, limit.T).tolist() == [[2**53]]
    with pytest.raises(ValueError, match=f"may reach {2**53 + 2**27} is not exact in float64"):
        int_matmul(limit + 1, limit.T)


@settings(deadline=None)
@given(
    hnp.arrays(np.int8, (2, 3)),
    hnp.arrays(np.int32, (2,), elements=st.integers(-1000, 1000)),
    st.sampled_from([(-128, 127), (0, 255), (-8, 7), (3, 9)]),
)
def test_bounds_enclose_every_partial_sum(
    weight: IntArray, bias: IntArray, codes: tuple[int, int]
) -> None:
    """All inputs at the extremes, all prefixes, bias first."""
    low, high = weight_bounds(weight, bias, *codes)
    for channel in range(2):
        for x in itertools.product(codes, repeat=3):
            terms = [int(w) * v for w, v in zip(weight[channel], x, strict=True)]
            partial = list(itertools.accumulate(terms, initial=int(bias[channel])))
            assert low <= min(partial)
            assert max(partial) <= high


@settings(deadline=None)
@given(hnp.arrays(np.int8, (3, 4)), st.sampled_from([(-128, 127), (0, 255), (-8, 7)]))
def test_bounds_are_reached(weight: IntArray, codes: tuple[int, int]) -> None:
    """Without a bias, and where 0 is a code, some input reaches them."""
    qmin, qmax = codes
    low, high = weight_bounds(weight, np.zeros(3, np.int32), qmin, qmax)
    wide = weight.astype(np.int64)
    largest = (wide * np.where(wide > 0, qmax, qmin)).sum(axis=1)
    smallest = (wide * np.where(wide > 0, qmin, qmax)).sum(axis=1)
    assert (low, high) == (smallest.min(), largest.max())


@pytest.mark.parametrize(
    ("weight", "bias", "codes", "wanted"),
    [
        (1, 5, (-3, 2), (-3, 7)),
        (1, -5, (-3, 2), (-8, 2)),
        (1, 5, (3, 9), (0, 14)),
        (-1, -5, (3, 9), (-14, 0)),
    ],
)
def test_bounds_hold_for_sums_without_the_bias_and_without_terms(
    weight: int, bias: int, codes: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert weight_bounds(np.array([[weight]]), np.array([bias]), *codes) == wanted


def test_bounds_do_not_wrap() -> None:
    """Long rows of extreme codes leave int32 visibly."""
    low, high = weight_bounds(np.full((1, 2**17), -128, np.int8), np.array([-(2**31)]), -128, 127)
    assert (low, high) == (-(2**17) * 128 * 127 - 2**31, 2**17 * 128 * 128)
    assert not fits_accumulator(low, 0)
    assert not fits_accumulator(0, high)


def test_fits_accumulator() -> None:
    """Symmetric, so that the negative fits too."""
    limit = 2**31 - 1
    assert fits_accumulator(-limit, limit)
    assert not fits_accumulator(-limit - 1, 0)
    assert not fits_accumulator(0, limit + 1)


def test_product_bound() -> None:
    """197 tokens of 8-bit codes."""
    assert product_bound(197, 255, 128) == 197 * 255 * 128


def test_scales_multiply_in_float64() -> None:
    """float32 scales are widened first: the product is exact."""
    a, b = np.float32(0.1), np.array([0.3, 0.7], np.float32)
    product = product_scale(a, b)
    assert product.dtype == np.float64 and product.shape == (2,)
    exact = [Fraction(float(a)) * Fraction(float(value)) for value in b]
    assert [Fraction(value) for value in product.tolist()] == exact
    assert product_scale(2.0, 0.25).shape == ()


@settings(deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.int8, np.uint8]), (2, 2, 3)),
    hnp.arrays(st.sampled_from([np.int8, np.uint8]), (3, 4)),
    st.integers(-128, 255),
    st.integers(-128, 255),
)
def test_zero_points_do_not_wrap(a: IntArray, b: IntArray, a_zero: int, b_zero: int) -> None:
    """Python integers; unsigned codes below their zero point too."""
    product = centred_matmul(a, b, a_zero, b_zero)
    for index in np.ndindex(*product.shape):
        row, column = a[index[:-1]].tolist(), b[:, index[-1]].tolist()
        pairs = zip(row, column, strict=True)
        assert product[index] == sum((x - a_zero) * (y - b_zero) for x, y in pairs)
