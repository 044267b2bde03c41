"""Sums of products: exact integers at corner codes stay inside of what is proven, and reach it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.relay_passes.proving import (
    OUT,
    assert_inside,
    corners,
    gemm,
    intervals,
    one,
    partial_sums,
    within,
)
from vitq.numerics.add import AddParams
from vitq.numerics.attention import AttentionParams
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.pooling import MeanParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftmax import CODE_LIMIT, CODE_MAX, CodeParams, normalize_params
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.registry import OPERATORS

FEW = settings(deadline=None, max_examples=30)
zero_points = st.integers(-128, 255)
multipliers = st.integers(-(2**14), 2**14)


def farthest(interval, zero_point):
    """The distances of both ends from a zero point."""
    return [end - zero_point for end in interval]


@FEW
@given(hnp.arrays(np.int8, (2, 3)), st.tuples(*[st.integers(-999, 999)] * 2), intervals("int8"))
def test_linear(weight, bias, codes):
    bounds = within(
        [((2, 3), "int8", codes)], lambda x: dialect.linear(x, gemm(weight, bias), "int8")
    )
    sums = set()
    for row, addend in zip(weight.tolist(), bias, strict=True):
        for x in corners(codes, 3):
            sums |= partial_sums([addend, *(w * v for w, v in zip(row, x, strict=True))])
    assert assert_inside(bounds["accumulator"], sums) == (0, 0)


@FEW
@given(hnp.arrays(np.int8, (2, 1, 2, 2)), st.tuples(*[st.integers(-999, 999)] * 2))
def test_patch_embed(weight, bias):
    bound = one(
        {"x": ((1, 1, 4, 2), "uint8")},
        lambda x: dialect.patch_embed(x, gemm(weight, bias), "int8"),
    )["patch_embed", "accumulator"]
    sums = set()
    for row, addend in zip(weight.reshape(2, -1).tolist(), bias, strict=True):
        sums |= partial_sums([addend, *(w * 255 for w in row)])
    assert assert_inside(bound, sums) == (0, 0)


@FEW
@given(intervals("int8"), intervals("uint8"), zero_points, zero_points, st.integers(1, 9))
def test_matmul(a, b, a_zero, b_zero, terms):
    operands = [((1, 5, 2, terms), "int8", a), ((1, 5, 3, terms), "uint8", b)]
    bounds = within(operands, lambda x, y: dialect.matmul(x, y, a_zero, b_zero))
    products = [p * q for p in farthest(a, a_zero) for q in farthest(b, b_zero)]
    # The interval is symmetric: only the end of the larger magnitude is reached.
    assert min(assert_inside(bounds["accumulator"], [terms * p for p in products])) == 0


@FEW
@given(intervals("int16"), st.integers(-(2**20), 2**20))
def test_requantize(codes, zero_point):
    params = RequantizeParams(to_dyadic(0.5), zero_point, 0, -128, 127)
    bounds = within([((2, 3), "int16", codes)], lambda x: dialect.requantize(x, params, "int8"))
    found = assert_inside(bounds["input minus zero point"], farthest(codes, zero_point))
    assert found == (0, 0)


def sums_of(a, b, p):
    """Both products and the rounding constant at all corners."""
    half = 2 ** (p.shift - 1)
    pairs = itertools.product(farthest(a, p.a_zero_point), farthest(b, p.b_zero_point))
    return [x * p.a_multiplier + y * p.b_multiplier + half for x, y in pairs]


def slack_of_signs(a, b, p):
    """A sum's interval is symmetric about its rounding constant; this is what is given away.

    Nothing at one end where the codes farthest from both zero points pull to the same side.
    """
    x = max(farthest(a, p.a_zero_point), key=abs) * p.a_multiplier
    y = max(farthest(b, p.b_zero_point), key=abs) * p.b_multiplier
    largest = max(abs(total - 2 ** (p.shift - 1)) for total in sums_of(a, b, p))
    return abs(x) + abs(y) - largest


@FEW
@given(
    intervals("int16"),
    intervals("int16"),
    zero_points,
    zero_points,
    multipliers,
    multipliers,
    st.integers(1, 30),
)
def test_add(a, b, a_zero, b_zero, a_multiplier, b_multiplier, shift):
    p = AddParams(a_zero, b_zero, a_multiplier, b_multiplier, shift, 0, -128, 127)
    operands = [((2, 3), "int16", a), ((2, 3), "int16", b)]
    bounds = within(operands, lambda x, y: dialect.add(x, y, p, "int16"))
    found = assert_inside(bounds["sum"], sums_of(a, b, p))
    assert min(found) == slack_of_signs(a, b, p)


@FEW
@given(
    st.tuples(st.integers(-128, -1), st.integers(0, 127)),
    intervals("int16"),
    zero_points,
    zero_points,
    multipliers,
    multipliers,
    st.integers(1, 30),
)
def test_linear_add(limits, residual, a_zero, b_zero, a_multiplier, b_multiplier, shift):
    """The second step knows the clamp of the first one, not its accumulator."""
    p = AddParams(a_zero, b_zero, a_multiplier, b_multiplier, shift, 0, -128, 127)
    layer = gemm(np.array([[3, -2]], np.int8), [7], *limits)
    operands = [((2, 2), "int8", (-5, 4)), ((2, 1), "int16", residual)]
    bounds = within(
        operands,
        lambda x, y: dialect.linear_add(dialect.linear(x, layer, "int8"), y, p, "int16"),
    )
    found = assert_inside(bounds["sum"], sums_of(limits, residual, p))
    assert min(found) == slack_of_signs(limits, residual, p)
    sums = [partial_sums([7, 3 * x, -2 * y]) for x, y in corners((-5, 4), 2)]
    assert assert_inside(bounds["accumulator"], set().union(*sums)) == (0, 0)


@FEW
@given(intervals("int16"), st.integers(-(2**15), 2**15 - 1), st.integers(1, 50))
def test_mean(codes, zero_point, length):
    params = MeanParams(2**30, 40, zero_point, 0, -128, 127)
    bounds = within([((1, length, 4), "int16", codes)], lambda x: dialect.mean(x, params, "int8"))
    sums = [length * end for end in farthest(codes, zero_point)]
    assert min(assert_inside(bounds["sum"], sums)) == 0


@FEW
@given(intervals("int8"), zero_points, st.floats(2.0**-20, 2.0**10), st.integers(1, 50))
def test_normalized_matmul(value, zero_point, factor, length):
    norm = normalize_params(factor, CODE_MAX, OUT)
    operands = [((1, 5, 2, length), "uint8", (0, 255)), ((1, 5, length, 3), "int8", value)]
    bounds = within(
        operands, lambda c, v: dialect.normalized_matmul(c, v, zero_point, norm, "int8")
    )
    sums = [length * CODE_MAX * end for end in farthest(value, zero_point)]
    assert min(assert_inside(bounds["accumulator"], sums)) == 0
    # Equal scores have the largest sum; scores far below the row's maximum the smallest one.
    assert assert_inside(bounds["row sum"], [0, length * CODE_MAX]) == (0, 0)
    assert assert_inside(bounds["row multiplier"], [0, norm.numerator // CODE_MAX]) == (0, 0)


@FEW
@given(
    intervals("int8"),
    st.tuples(*[zero_points] * 3),
    st.floats(2.0**-20, 2.0**10),
    st.integers(0, 12),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_attention(codes, zeros, factor, grid_bits, length, depth):
    norm = normalize_params(factor, CODE_MAX, OUT)
    limit = min(CODE_LIMIT >> (12 - grid_bits), 100)
    weights = CodeParams(2**30, 40, grid_bits, limit, 0, *ONE_RANGE)
    params = AttentionParams(*zeros, *weights, *norm)
    bounds = within(
        [((1, length, 3, 2, depth), "int8", codes)],
        lambda x: dialect.attention(x, params, "int8"),
    )
    q, k, v = (farthest(codes, zero) for zero in zeros)
    scores = [depth * x * y for x in q for y in k]
    assert min(assert_inside(bounds["score"], scores)) == 0
    sums = [length * CODE_MAX * end for end in v]
    assert min(assert_inside(bounds["accumulator"], sums)) == 0
    assert assert_inside(bounds["row sum"], [0, length * CODE_MAX]) == (0, 0)
    assert assert_inside(bounds["row multiplier"], [0, norm.numerator // CODE_MAX]) == (0, 0)
    octaves = [0, limit * 2**12 // 2**grid_bits]
    assert assert_inside(bounds["exponent"], octaves) == (0, 0)


@pytest.mark.parametrize(
    ("name", "first", "result", "products"),
    [
        (names.LINEAR, (2, 5, 7), (2, 5, 3), 2 * 5 * 3 * 7),
        (names.LINEAR_ADD, (2, 5, 7), (2, 5, 3), 2 * 5 * 3 * 7),
        (names.LINEAR_GELU, (2, 5, 7), (2, 5, 3), 2 * 5 * 3 * 7),
        (names.PATCH_EMBED, (2, 3, 8, 12), (2, 6, 5), 2 * 6 * 5 * (3 * 4 * 4)),
        (names.MATMUL, (2, 4, 5, 7), (2, 4, 5, 3), 2 * 4 * 5 * 3 * 7),
        (names.NORMALIZED_MATMUL, (2, 4, 5, 7), (2, 4, 5, 3), 2 * 4 * 5 * 3 * 7),
        (names.ATTENTION, (2, 5, 3, 4, 7), (2, 5, 4, 7), 2 * (2 * 4 * 5 * 5 * 7)),
        (names.LAYERNORM, (2, 5, 7), (2, 5, 7), 0),
    ],
)
def test_products_are_counted(name, first, result, products):
    assert OPERATORS[name].macs(first, result) == products
