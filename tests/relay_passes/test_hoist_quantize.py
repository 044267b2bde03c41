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
from vitq.relay_passes.hoist_quantize import HoistQuantize
from vitq.relay_passes.reading.matching import read_quantize

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


def scaled(operator, factor, split=heads_by_permute):
    """q times a factor, with one more layout operator behind it; k and v as they are."""

    def body(b, x):
        y = b(relax.op.multiply(x, x))
        q, k, v = (split(b, y, i) for i in range(3))
        q = b(operator(q, constant(np.asarray(factor, np.float32))))
        q = b(relax.op.permute_dims(q, [0, 1, 3, 2]))
        return [b.q(q, 0.01, 1), b.q(k, 0.02), b.q(v, 0.03, -2)]

    return module(INPUT, body)


@pytest.mark.parametrize("operator", [relax.op.multiply, relax.op.divide])
@pytest.mark.parametrize("split", [heads_by_permute, heads_by_slice])
def test_a_factor_moves_along(operator, split):
    before = scaled(operator, 0.3, split)
    after = HoistQuantize()(before)
    name = operator.__name__
    assert ops(after)[:3] == ["multiply", name, "quantize"]
    assert ops(after).count("quantize") == 1
    factor = bindings_of(after[MAIN])[1].value.args[1].value.numpy()
    expected = np.repeat(np.array([0.3, 1, 1], np.float32), CHANNELS)
    np.testing.assert_array_equal(factor, expected)
    assert_same_results(before, after)


def test_factors_keep_their_order():
    def body(b, x):
        y = b(relax.op.multiply(x, x))
        q, k = (heads_by_slice(b, y, i) for i in range(2))
        q = b(relax.op.divide(q, constant(np.float32(0.7))))
        q = b(relax.op.reshape(q, (BATCH * HEADS, TOKENS, DEPTH)))
        q = b(relax.op.multiply(q, constant(np.float32(0.3))))
        k = b(relax.op.multiply(k, constant(np.float32(0.6))))
        return [b.q(q, 0.01), b.q(k, 0.02)]

    before = module(INPUT, body)
    after = HoistQuantize()(before)
    assert ops(after)[:5] == ["multiply", "multiply", "divide", "multiply", "quantize"]
    assert_same_results(before, after)


def test_one_factor_for_all_is_a_scalar():
    def body(hoisted):
        def build(b, x):
            y, half = b(relax.op.multiply(x, x)), constant(np.float32(0.5))
            if hoisted:
                y = b.q(b(relax.op.multiply(y, half)), 0.01)
                return b(relax.op.reshape(y, (BATCH * TOKENS, 3 * CHANNELS)))
            y = b(relax.op.reshape(y, (BATCH * TOKENS, 3 * CHANNELS)))
            return b.q(b(relax.op.multiply(y, half)), 0.01)

        return module(INPUT, build)

    before = body(False)
    assert_same_results(before, assert_rewrites(HoistQuantize(), before, body(True)))


def test_an_image_keeps_its_factor_on_axis_1():
    inputs = {"x": ((1, 3, 4, 4), "float32"), "w": ((6, 3, 2, 2), "float32")}

    def body(b, x, w):
        y = b(relax.op.reshape(b(relax.op.nn.conv2d(x, w, strides=2)), (1, 6, 4)))
        parts = [b(relax.op.strided_slice(y, [1], [3 * i], [3 * i + 3])) for i in range(2)]
        return [
            b.q(b(relax.op.multiply(parts[0], constant(np.float32(0.3)))), 0.1),
            b.q(parts[1], 0.2),
        ]

    before = module(inputs, body)
    after = HoistQuantize()(before)
    assert ops(after)[:3] == ["conv2d", "multiply", "quantize"]
    assert_same_results(before, after)


def test_negative_and_vector_factors_end_the_chain():
    for factor in (-0.3, np.linspace(0.1, 1, DEPTH)):
        after = HoistQuantize()(scaled(relax.op.multiply, factor))
        assert ops(after).count("quantize") == 2


def test_one_channel_with_two_factors_stays():
    def body(b, x):
        y = b(relax.op.multiply(x, x))
        half = b(relax.op.multiply(y, constant(np.float32(0.5))))
        return [b.q(y, 0.1), b.q(half, 0.1)]

    assert_declines(HoistQuantize(), module(INPUT, body), "channel 0 would get two different fact")


def test_narrower_parts_are_clamped():
    parts = [(0.001, 1, "int16"), (0.002, 0, "int16"), (0.003, -2), (0.004, 1, "int8", -1, (-8, 7))]

    def body(b, x):
        y = b(relax.op.multiply(x, x))
        slices = [b(relax.op.strided_slice(y, [2], [6 * i], [6 * i + 6])) for i in range(4)]
        return [b.q(part, *quantizer) for part, quantizer in zip(slices, parts, strict=True)]

    before = module(INPUT, body)
    after = HoistQuantize()(before)
    clamp = names.REQUANTIZE
    slices = ["strided_slice", "strided_slice", "strided_slice", clamp, "strided_slice", clamp]
    assert ops(after) == ["multiply", "quantize", *slices]
    assert read_quantize(bindings_of(after[MAIN])[1].value).dtype == "int16"
    assert_same_results(before, after)


def test_types_that_do_not_hold_each_other_stay():
    before = qkv(heads_by_slice, [(0.01, 1), (0.02, 2, "uint8")])
    assert_declines(HoistQuantize(), before, "different types")


def test_a_quantizer_in_its_place_stays():
    assert_declines(HoistQuantize(), qkv(lambda b, y, i: y, [(0.01, 1)]))
