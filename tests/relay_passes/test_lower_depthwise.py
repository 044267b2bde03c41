import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_same_results,
    module,
    ops,
    random_inputs,
)
from vitq.numerics.convolution import Geometry, depthwise_sum, tap_rows
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_depthwise import LowerDepthwise

C, KERNEL = 6, (3, 2)
RNG = np.random.default_rng(5)
WEIGHT = RNG.integers(-127, 128, (C, 1, *KERNEL)).astype(np.int8)
SCALE = RNG.uniform(0.001, 0.003, C).astype(np.float32)
BIAS = RNG.integers(-900, 900, (1, C, 1, 1)).astype(np.int32)
X_SCALE, X_ZERO = np.float32(0.02), 9


def depthwise(weight=WEIGHT, groups=C, x_dtype="uint8", **attrs):
    def body(b, x):
        real = b.dq(x, X_SCALE, X_ZERO)
        y = b(relax.op.nn.conv2d(real, b.dq(weight, SCALE, axis=0), groups=groups, **attrs))
        y = b(relax.op.add(y, b.dq(BIAS, X_SCALE * SCALE, axis=1)))
        return b.q(y, 0.01, -4, "int16")

    return module({"x": ((2, C, 7, 5), x_dtype)}, body)


@pytest.mark.parametrize(
    ("attrs", "place"),
    [
        ({}, Geometry(KERNEL)),
        (
            {"strides": [2, 1], "padding": [1, 0, 2, 1], "dilation": [1, 2]},
            Geometry(KERNEL, (2, 1), (1, 0), (2, 1), (1, 2)),
        ),
    ],
)
def test_integers_and_structure(attrs, place):
    before = depthwise(**attrs)
    after = LowerDepthwise()(before)
    layout = ["reshape", "permute_dims"]
    assert ops(after) == [*layout[::-1], names.DEPTHWISE, *layout]
    x = random_inputs(before)[0]
    rows = x.transpose(0, 2, 3, 1).reshape(2, 35, C)
    acc = depthwise_sum(rows, tap_rows((7, 5), place), WEIGHT.reshape(C, -1), X_ZERO)
    acc = acc + BIAS.reshape(C)
    dyadic = to_dyadic(float(X_SCALE) * SCALE.astype(np.float64) / float(np.float32(0.01)))
    codes = rescale(acc, dyadic).reshape(2, *place.windows((7, 5)), C) - 4
    expected = np.clip(codes.transpose(0, 3, 1, 2), -(2**15), 2**15 - 1)
    np.testing.assert_array_equal(interpret(after, [x])[0], expected)
    # a float product on a tie may round the other way
    assert_same_results(before, after, atol=1)


def test_convolutions_of_one_group_are_left():
    whole = np.repeat(WEIGHT, C, 1)
    before = depthwise(whole, groups=1)
    assert names.DEPTHWISE not in ops(LowerDepthwise()(before))


def test_groups_of_several_channels_are_refused():
    pairs = np.repeat(WEIGHT, 2, 1)
    assert_declines(LowerDepthwise(), depthwise(pairs, groups=3), "has 3 groups for 6 channels")


def test_wide_codes_are_refused():
    assert_declines(LowerDepthwise(), depthwise(x_dtype="int16"), "8 bits are needed")
