"""Exact products and accumulator bounds against Python integers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from numerics.arrays import IntArray
from numerics.matmul import fits_accumulator, int_matmul, product_bound, weight_bounds

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


def test_longest_inner_dimension() -> None:
    """The documented limit at the largest codes, where one bit more would be lost."""
    length = 2**19
    a = np.full((1, length), CODE_LIMIT)
    product = int_matmul(a, a.T)
    assert product.tolist() == [[length * CODE_LIMIT**2]]


def test_too_long_inner_dimension() -> None:
    """Refused, as float64 could round."""
    with pytest.raises(ValueError, match="inner dimension of 524289 is not exact"):
        int_matmul(np.zeros((1, 2**19 + 1), np.int8), np.zeros((2**19 + 1, 1), np.int8))


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


def test_bounds_do_not_wrap() -> None:
    """Long rows of extreme codes leave int32 visibly."""
    low, high = weight_bounds(
        np.full((1, 2**17), -128, np.int8), np.array([-(2**31)]), -128, 127
    )
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
