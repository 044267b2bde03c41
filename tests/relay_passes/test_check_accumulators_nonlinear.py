"""Nonlinear operators: what `numerics` computes at corner codes is inside of what is proven.

Where a bound is not reached, the test says by how much it is missed and why.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay_passes.proving import OUT, assert_inside, gemm, intervals, one, within
from vitq.numerics import ivit
from vitq.numerics.dyadic import rescale, scalar_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.exp2 import ONE
from vitq.numerics.int_layernorm import LayerNormParams, layernorm_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params, shiftgelu_tail
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    CODE_MAX,
    CodeParams,
    grid_params,
    normalize_params,
    shiftmax_codes,
    shiftmax_params,
)
from vitq.numerics.table import TableParams
from vitq.numerics.twin import Twin
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.relay_passes.dialect import calls as dialect

FEW = settings(deadline=None, max_examples=30)
ZERO_POINTS = st.integers(-(2**14), 2**14)


@FEW
@given(intervals("int16"), st.integers(0, 12), st.integers(1, 300), st.floats(1e-3, 1.0))
def test_shiftmax_codes(codes, grid_bits, length, scale):
    p = grid_params(scale, grid_bits, CODE_LIMIT >> (12 - grid_bits), zero_last=False)
    bounds = within([((2, 3, length), "int16", codes)], lambda x: dialect.shiftmax_codes(x, p))
    assert assert_inside(bounds["score"], codes) == (0, 0)
    # A row of equal scores; and one whose distance goes on as far as an int32 does.
    row = shiftmax_codes(np.full((1, length), codes[1]), p)
    assert assert_inside(bounds["row sum"], [0, row.sum()]) == (0, 0)
    distance = np.array([0, codes[1] - codes[0], 2**31 - 1])
    exponents = np.minimum(rescale(distance, scalar_dyadic(p.multiplier, p.shift)), p.limit)
    octaves = (exponents << (12 - grid_bits)).tolist()
    assert assert_inside(bounds["exponent"], octaves) == (0, 0)


@FEW
@given(intervals("int16"), st.integers(1, 300), st.floats(1e-3, 1.0))
def test_shiftmax(codes, length, scale):
    """The row sum's bound takes 2**15 for the largest exponential, which is `ONE`."""
    p, norm = shiftmax_params(scale), normalize_params(1.0, ONE, OUT)
    bounds = within(
        [((2, 3, length), "int16", codes)], lambda x: dialect.shiftmax(x, p, norm, "int8")
    )
    assert assert_inside(bounds["score"], codes) == (0, 0)
    assert assert_inside(bounds["row sum"], [0, length * ONE]) == (0, length * (2**15 - ONE))


def gelu_steps(codes, p):
    """Each intermediate of `numerics.shiftgelu` for all codes, with Python integers."""
    found = {"input minus zero point": [], "rescaled input": [], "tail": [], "sum": []}
    found["coarse range"] = []
    for code in codes:
        c = code - p.x_zero_point
        rescaled = min(abs(c), p.farthest) * p.in_multiplier + (1 << p.in_shift >> 1)
        eighth = rescaled >> p.in_shift
        tail = int(shiftgelu_tail(np.array(2 * eighth))) * p.tail_multiplier
        tail += 1 << p.tail_shift >> 1
        rest = (max(c, 0) << p.up) - (tail >> p.tail_shift)
        total = rest * p.out_multiplier + (1 << p.out_shift >> 1)
        coarse = (total >> p.out_shift) - p.split_steps
        found["input minus zero point"].append(c)
        found["rescaled input"].append(rescaled)
        found["tail"].append(tail)
        found["sum"].append(total)
        found["coarse range"] += [coarse, coarse + (1 << (p.more + p.twin_shift) >> 1)]
    return found


def corner_codes(low, high, p):
    """Both ends, those next to the zero point, and where the tail is largest."""
    peak = round(0.748 / 8 * 2**15 * 2**p.in_shift / p.in_multiplier)  # u / 8 in Q15
    near = [p.x_zero_point + sign * (peak + d) for sign in (-1, 1) for d in range(-3, 4)]
    wanted = [low, high, p.x_zero_point - 1, p.x_zero_point, p.x_zero_point + 1, *near]
    return [code for code in wanted if low <= code <= high]


def near_zero(codes, scale, zero_point):
    """An interval of inputs that are within +-8, as those of a layer are."""
    far = int(8 / scale)
    return tuple(min(max(c, zero_point - far), zero_point + far) for c in codes)


TWINS = st.none() | st.builds(Twin, st.integers(-100, 100), st.integers(1, 5))


@FEW
@given(intervals("int16"), st.floats(2.0**-14, 0.1), ZERO_POINTS, st.floats(2.0**-8, 0.25), TWINS)
def test_shiftgelu_stays_inside(codes, scale, zero_point, out_scale, twin):
    codes = near_zero(codes, scale, zero_point)
    p = gelu_params(scale, zero_point, QuantParams.per_tensor(out_scale, 3, -128, 127), twin)
    bounds = within([((2, 3), "int16", codes)], lambda x: dialect.shiftgelu(x, p, "int8"))
    found = gelu_steps(corner_codes(*codes, p), p)
    assert ("coarse range" in bounds) == (twin is not None)
    for what, bound in bounds.items():
        assert_inside(bound, found[what])
    assert assert_inside(bounds["input minus zero point"], found["input minus zero point"]) == (
        0,
        0,
    )


@FEW
@given(st.floats(2.0**-13, 2.0**-10), st.floats(2.0**-8, 0.1), TWINS)
def test_shiftgelu_slack(scale, out_scale, twin):
    """Of int16 codes finer than the tail's own steps. What is given away, line by line:

    the rounding constants of the rescaled input and of the tail count whole instead of half; the
    sum's upper end takes no tail, though one unit of it is held for the largest codes, and its
    lower end has no rounding constant.
    """
    p = gelu_params(scale, 0, QuantParams.per_tensor(out_scale, 3, -128, 127), twin)
    bounds = one({"x": ((2, 3), "int16")}, lambda x: dialect.shiftgelu(x, p, "int8"))
    codes = range(-(2**15), 2**15)
    found = gelu_steps([-(2**15), 2**15 - 1, *corner_codes(codes[0], codes[-1], p)], p)
    inside = {what: assert_inside(bound, found[what]) for (_, what), bound in bounds.items()}
    assert inside["rescaled input"][1] == 1 << p.in_shift >> 1
    peak = int(shiftgelu_tail(np.arange(0, 2**15, 2)).max()) * p.tail_multiplier
    assert bounds["shiftgelu", "tail"].high == peak + (1 << p.tail_shift)
    assert max(found["tail"]) >= peak - 2 * p.tail_multiplier  # a peak between two codes
    held = (p.tail_multiplier + (1 << p.tail_shift >> 1)) >> p.tail_shift
    half = 1 << p.out_shift >> 1
    assert inside["sum"][1] == held * p.out_multiplier + (1 << p.out_shift) - half
    steps = (2 * p.tail_multiplier >> p.tail_shift) + 2
    assert half <= inside["sum"][0] <= half + steps * p.out_multiplier
    if twin is not None:
        rounded = 1 << (p.more + p.twin_shift) >> 1
        lost = held * p.out_multiplier + half
        assert rounded <= inside["coarse range"][1] <= rounded + (lost >> p.out_shift) + 1


@FEW
@given(st.tuples(st.integers(-(2**15), -1), st.integers(0, 2**15 - 1)), st.floats(1e-3, 0.2))
def test_linear_gelu(limits, scale):
    """The GELU's input is the clamp of the layer, whatever its accumulator is."""
    limits = near_zero(limits, scale, 0)
    p = gelu_params(scale, 0, OUT)
    layer = gemm(np.array([[1, 1]], np.int8), [3], *limits)
    bounds = within(
        [((2, 2), "int8", (-4, 4))],
        lambda x: dialect.linear_gelu(dialect.linear(x, layer, "int16"), p, "int8"),
    )
    assert bounds["accumulator"][3:5] == (-8, 11)
    assert bounds["input minus zero point"][3:5] == limits
    found = gelu_steps(corner_codes(*limits, p), p)
    for what in ("rescaled input", "tail", "sum"):
        assert_inside(bounds[what], found[what])


@FEW
@given(intervals("int16"), st.integers(1, 2**20), st.integers(1, 300))
def test_ivit_shiftmax(codes, i0, length):
    params = ivit.IvitSoftmaxParams(i0)
    bounds = within([((2, 3, length), "int16", codes)], lambda x: dialect.ivit_shiftmax(x, params))
    assert assert_inside(bounds["score"], codes) == (0, 0)
    assert assert_inside(bounds["unit"], [i0]) == (0, 0)
    equal = ivit.shift_exp(np.zeros(length, np.int64), i0, ivit.SOFTMAX_OCTAVES)
    assert assert_inside(bounds["row sum"], [0, equal.sum()]) == (0, 0)


@FEW
@given(st.tuples(st.integers(-(2**15), -1), st.integers(1, 2**15 - 1)), st.floats(1e-3, 1.0))
def test_ivit_shiftgelu(codes, scale):
    """The sigmoid's bound is 1: a floor keeps it at 127 / 128, and a negative code's at 1 / 2."""
    p = ivit.ivit_gelu_params(scale, 0, OUT)
    bounds = within([((1, 2), "int16", codes)], lambda x: dialect.ivit_shiftgelu(x, p, "int8"))
    assert assert_inside(bounds["input minus zero point"], codes) == (0, 0)
    assert assert_inside(bounds["unit"], [p.i0]) == (0, 0)
    sums, products = [0], []
    for row in ([codes[0], codes[0]], [codes[0], 0], [codes[0], codes[1]]):
        c = np.array(row)
        power = c + (c >> 1) + (c >> 3) + (c >> 4)
        largest = max(int(power.max()), 0)
        e = ivit.shift_exp(power - largest, p.i0, ivit.GELU_OCTAVES)
        total = e + ivit.shift_exp(np.array(-largest), p.i0, ivit.GELU_OCTAVES)
        sums += total.tolist()
        products += (c * ivit.int_div(e, total)).tolist()
    assert assert_inside(bounds["sum of two exponentials"], sums) == (0, 0)
    below, above = assert_inside(bounds["product"], products)
    assert below >= -codes[0] * 64 and above >= codes[1]


def layernorm_steps(row, eps_q):
    """The sums of `numerics.int_layernorm`, with Python integers."""
    channels, total = len(row), sum(row)
    squares = channels * sum(x * x for x in row)
    return squares, squares - total * total + eps_q


@FEW
@given(intervals("int16"), st.integers(1, 12), st.integers(1, 2**40))
def test_layernorm_sums(codes, channels, eps_q):
    """Half of the channels at each end have the largest variance.

    One unit is given away, and a quarter of the squared width where the channels are odd.
    """
    ones = np.ones(channels, np.int32)
    p = LayerNormParams(ones, ones, eps_q, 10, 10, -128, 127)
    bounds = within([((1, channels), "int16", codes)], lambda x: dialect.layernorm(x, p, "int8"))
    low, high = codes
    rows = [[low] * k + [high] * (channels - k) for k in range(channels + 1)]
    squares, variances = zip(*(layernorm_steps(row, eps_q) for row in rows), strict=True)
    assert assert_inside(bounds["channels"], [channels]) == (0, 0)
    assert assert_inside(bounds["sum of squares times channels"], [0, *squares]) == (0, 0)
    found = assert_inside(bounds["variance"], [0, *variances])
    odd = channels % 2 * (high - low) ** 2
    assert 4 * found[1] in range(odd + 1, odd + 5)  # the quarter is a floor


@FEW
@given(
    st.lists(st.floats(-4, 4), min_size=1, max_size=9),
    st.floats(-100, 100),
    st.floats(2.0**-8, 0.25),
)
def test_layernorm_affine(gamma, beta, out_scale):
    """A normalized value is taken for all int16; it is at most ``sqrt(C - 1)``."""
    channels = len(gamma)
    out = QuantParams.per_tensor(out_scale, 3, -128, 127)
    p = layernorm_params(1e-3, 1e-6, np.array(gamma), np.full(channels, beta), out)
    bound = one({"x": ((1, channels), "int16")}, lambda x: dialect.layernorm(x, p, "int8"))[
        "layernorm", "affine sum"
    ]
    multipliers, addends = (v.astype(object) for v in (p.multiplier, p.addend))
    sums = [
        t * m + b
        for t, (m, b) in itertools.product(
            (-(2**15), 2**15), zip(multipliers, addends, strict=True)
        )
    ]
    assert min(assert_inside(bound, sums)) == 0


@pytest.mark.parametrize(("low", "entries"), [(-128, 256), (-127, 256), (-128, 255)])
def test_a_table_has_an_entry_for_each_code(low, entries):
    """Short at either end it has not."""
    table, p = np.zeros((1, entries), np.int8), TableParams(0, low)
    inputs = {"x": ((1, 3), "int8")}
    if (low, entries) == (-128, 256):
        bounds = one(inputs, lambda x: dialect.lut(x, table, p))
        assert assert_inside(bounds["lut", "index"], [0, 255]) == (0, 0)
        return
    with pytest.raises(RangeError, match=r"vitq\.lut .*: its index.* can reach"):
        one(inputs, lambda x: dialect.lut(x, table, p))


def test_grids_without_a_fraction_are_bounded_by_whole_octaves():
    p = CodeParams(2**30, 40, 0, 9, 0, *ONE_RANGE)
    bound = one({"x": ((1, 5), "int8")}, lambda x: dialect.shiftmax_codes(x, p))
    assert bound["shiftmax_codes", "exponent"].high == 9 * 4096
    assert bound["shiftmax_codes", "row sum"].high == 5 * CODE_MAX


def test_what_cannot_be_negative_is_proven_so_and_channels_are_the_last_axis():
    p = gelu_params(0.05, 0, OUT)
    bounds = within([((2, 5), "int16", (-300, 300))], lambda x: dialect.shiftgelu(x, p, "int8"))
    assert [bounds[name].low for name in ("rescaled input", "tail")] == [0, 0]
    norm = layernorm_params(0.05, 1e-6, np.ones(8), np.zeros(8), OUT)
    bounds = within(
        [((2, 5, 8), "int16", (-300, 300))], lambda x: dialect.layernorm(x, norm, "int8")
    )
    assert bounds["channels"].high == 8
    assert bounds["variance"].low == bounds["sum of squares times channels"].low == 0
