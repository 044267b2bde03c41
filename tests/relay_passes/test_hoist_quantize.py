import numpy as np
import pytest
from tvm import relax

from relay_passes.hoist_quantize import HoistQuantize
from relay_passes.matching import read_quantize
from relay_passes.rewriting import MAIN, bindings_of
from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
    ops,
)

BATCH, TOKENS, HEADS, DEPTH = 2, 5, 2, 4
CHANNELS = HEADS * DEPTH
INPUT = {"x": ((BATCH, TOKENS, 3 * CHANNELS), "float32")}


def heads_by_permute(b, y, index):
    y = b(relax.op.reshape(y, (BATCH, TOKENS, 3, HEADS, DEPTH)))
    y = b(relax.op.permute_dims(y, [2, 0, 3, 1, 4]))
    y = b(relax.op.strided_slice(y, [0], [index], [index + 1]))
    return b(relax.op.reshape(y, (BATCH, HEADS, TOKENS, DEPTH)))


def heads_by_slice(b, y, index):
    y = b(relax.op.strided_slice(y, [2], [index * CHANNELS], [(index + 1) * CHANNELS]))
    y = b(relax.op.reshape(y, (BATCH, TOKENS, HEADS, DEPTH)))
    return b(relax.op.permute_dims(y, [0, 2, 1, 3]))


def qkv(split, quantizers):
    def body(b, x):
        y = b(relax.op.multiply(x, x))  # stands for whatever computes qkv
        return [b.q(split(b, y, i), *quantizer) for i, quantizer in enumerate(quantizers)]

    return module(INPUT, body)


@pytest.mark.parametrize("split", [heads_by_permute, heads_by_slice])
def test_three_quantizers_become_one_per_channel(split):
    before = qkv(split, [(0.01, 1), (0.02, -2), (0.03, 3)])
    step = HoistQuantize()
    after = step(before)
    quantizers = [q for b in bindings_of(after[MAIN]) if (q := read_quantize(b.value))]
    assert len(quantizers) == 1
    assert quantizers[0].axis == 2
    expected = np.repeat(np.array([0.01, 0.02, 0.03], np.float32), CHANNELS)
    np.testing.assert_array_equal(quantizers[0].qparams.scale, expected)
    np.testing.assert_array_equal(quantizers[0].qparams.zero_point, np.repeat([1, -2, 3], CHANNELS))
    assert ops(after)[:2] == ["multiply", "quantize"]
    assert_same_results(before, after)


def test_equal_quantizers_become_one_per_tensor():
    after = HoistQuantize()(qkv(heads_by_permute, [(0.01, 1)] * 3))
    quantizer = read_quantize(bindings_of(after[MAIN])[1].value)
    assert quantizer.is_per_tensor


def test_layout_shared_by_parts_stays_shared():
    def body(b, x):
        y = b(relax.op.reshape(b(relax.op.multiply(x, x)), (10, 3, CHANNELS)))
        parts = [b(relax.op.strided_slice(y, [1], [i], [i + 1])) for i in range(3)]
        return [b.q(part, 0.1 * (i + 1)) for i, part in enumerate(parts)]

    before = module(INPUT, body)
    after = HoistQuantize()(before)
    assert ops(after) == ["multiply", "quantize", "reshape", *["strided_slice"] * 3]
    assert_same_results(before, after)


def test_one_quantizer_moves_above_layout():
    def body(quantize_first):
        def build(b, x):
            y = b(relax.op.multiply(x, x))
            y = b.q(y, 0.01, 4) if quantize_first else y
            y = b(relax.op.reshape(y, (BATCH * TOKENS, 3 * CHANNELS)))
            return y if quantize_first else b.q(y, 0.01, 4)

        return module(INPUT, build)

    before = body(False)
    assert_same_results(before, assert_rewrites(HoistQuantize(), before, body(True)))


def test_an_image_keeps_its_channels_on_axis_1():
    inputs = {"x": ((1, 3, 4, 4), "float32"), "w": ((6, 3, 2, 2), "float32")}

    def body(b, x, w):
        y = b(relax.op.nn.conv2d(x, w, strides=2))
        y = b(relax.op.permute_dims(b(relax.op.reshape(y, (1, 6, 4))), [0, 2, 1]))
        return b.q(y, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], axis=2)

    before = module(inputs, body)
    after = HoistQuantize()(before)
    assert ops(after) == ["conv2d", "quantize", "reshape", "permute_dims"]
    assert read_quantize(bindings_of(after[MAIN])[1].value).axis == 1
    assert_same_results(before, after)


def test_a_channel_with_two_quantizers_stays():
    def body(b, x):
        y = b(relax.op.multiply(x, x))
        tokens = [b(relax.op.strided_slice(y, [1], [i], [i + 1])) for i in range(2)]
        return [b.q(token, scale) for token, scale in zip(tokens, (0.1, 0.2), strict=True)]

    assert_declines(HoistQuantize(), module(INPUT, body), "channel 0 would get two")


def test_two_types_stay():
    before = qkv(heads_by_slice, [(0.01, 1), (0.02, 2, "uint8")])
    assert_declines(HoistQuantize(), before, "different types")


def test_a_quantizer_in_its_place_stays():
    assert_declines(HoistQuantize(), qkv(lambda b, y, i: y, [(0.01, 1)]))
