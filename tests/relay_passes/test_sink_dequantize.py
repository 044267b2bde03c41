import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
    ops,
)
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import MAIN, bindings_of, constant
from vitq.relay_passes.reading.matching import read_dequantize
from vitq.relay_passes.sink_dequantize import SinkDequantize

INPUT = {"x": ((2, 3, 4), "int8")}
LAYOUTS = {
    "reshape": lambda x: relax.op.reshape(x, (6, 4)),
    "permute_dims": lambda x: relax.op.permute_dims(x, [2, 0, 1]),
    "strided_slice": lambda x: relax.op.strided_slice(x, [2], [1], [3]),
    "broadcast_to": lambda x: relax.op.broadcast_to(x, (5, 2, 3, 4)),
    "take": lambda x: relax.op.take(x, constant(np.array([2, 0, 2])), axis=1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_moves_above_dequantize(name):
    layout = LAYOUTS[name]
    before = module(INPUT, lambda b, x: b(layout(b.dq(x, 0.5, 3))))
    expected = module(INPUT, lambda b, x: b.dq(b(layout(x)), 0.5, 3))
    assert_same_results(before, assert_rewrites(SinkDequantize(), before, expected))


@pytest.mark.parametrize(("name", "axis"), list(zip(LAYOUTS, (1, 0, 2, 3, 2), strict=True)))
def test_a_per_channel_scale_follows_its_axis(name, axis):
    scale, zero = [0.5, 1.0, 2.0, 4.0], [1, 2, 3, 4]
    before = module(INPUT, lambda b, x: b(LAYOUTS[name](b.dq(x, scale, zero, axis=2))))
    after = SinkDequantize()(before)
    assert ops(after) == [name, names.DEQUANTIZE]
    assert read_dequantize(bindings_of(after[MAIN])[1].value).axis == axis
    assert_same_results(before, after)


def concat(second_scale):
    inputs = {"x": ((2, 1, 4), "int8"), "y": ((2, 2, 4), "int8")}

    def body(b, x, y):
        return b(relax.op.concat([b.dq(x, 0.5, 1), b.dq(y, second_scale, 1)], axis=1))

    return module(inputs, body)


def test_concat_of_one_scale():
    inputs = {"x": ((2, 1, 4), "int8"), "y": ((2, 2, 4), "int8")}
    expected = module(inputs, lambda b, x, y: b.dq(b(relax.op.concat([x, y], axis=1)), 0.5, 1))
    before = concat(0.5)
    assert_same_results(before, assert_rewrites(SinkDequantize(), before, expected))


def test_concat_of_two_scales_stays():
    assert_declines(SinkDequantize(), concat(0.25), "different scales")


def test_a_reshape_that_splits_the_channels_stays():
    before = module(
        INPUT, lambda b, x: b(relax.op.reshape(b.dq(x, np.ones(4), axis=2), (2, 3, 2, 2)))
    )
    assert_declines(SinkDequantize(), before, "breaks up")


def test_a_pads_zeros_are_the_zero_point():
    pads = [0, 0, 1, 2, 0, 1]
    before = module(INPUT, lambda b, x: b(relax.op.nn.pad(b.dq(x, 0.5, 3), pads)))
    expected = module(INPUT, lambda b, x: b.dq(b(relax.op.nn.pad(x, pads, pad_value=3)), 0.5, 3))
    assert_same_results(before, assert_rewrites(SinkDequantize(), before, expected))


def test_a_take_of_channels_takes_their_scales():
    index = constant(np.array([3, 0]))
    before = module(
        INPUT,
        lambda b, x: b(relax.op.take(b.dq(x, [0.5, 1.0, 2.0, 4.0], 1, axis=2), index, axis=2)),
    )
    after = SinkDequantize()(before)
    assert_same_results(before, after)
    assert ops(after) == ["take", names.DEQUANTIZE]


@pytest.mark.parametrize(("scale", "value"), [([0.5, 1.0, 2.0, 4.0], 0), (0.5, 1)])
def test_other_pads_stay(scale, value):
    pads = [0, 0, 1, 2, 0, 0]
    mod = module(
        INPUT, lambda b, x: b(relax.op.nn.pad(b.dq(x, scale, 1, axis=2), pads, pad_value=value))
    )
    assert_declines(SinkDequantize(), mod, "a pad with something else than zeros")
