import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.pointwise import Source, pointwise_table
from vitq.numerics.qparams import QuantParams, quantize
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_pointwise import LowerPointwise

OUT = QuantParams(np.float32(0.03), np.int32(-90), -128, 127)
X = {"x": ((3, 7, 8), "int8")}


def number(value):
    return constant(np.float32(value))


def silu(m, x):
    return m(relax.op.multiply(x, m(relax.op.sigmoid(x))))


def quick_gelu(m, x):
    gate = m(relax.op.sigmoid(m(relax.op.multiply(x, number(1.702)))))
    return m(relax.op.multiply(gate, x))


def exponential_silu(m, x):
    e = m(relax.op.exp(m(relax.op.negative(x))))
    return m(relax.op.divide(x, m(relax.op.add(e, number(1)))))


def elu(m, x):
    below = m(relax.op.nn.relu(m(relax.op.subtract(number(1), m(relax.op.exp(x))))))
    return m(relax.op.add(m(relax.op.multiply(below, number(-0.7))), m(relax.op.nn.relu(x))))


SPELLED = {
    "silu": (silu, "silu", None),
    "silu by exp": (exponential_silu, "silu", None),
    "quick_gelu": (quick_gelu, "quick_gelu", None),
    "elu": (elu, "elu", 0.7),
    "leaky_relu": (lambda m, x: m(relax.op.nn.leakyrelu(x, 0.25)), "leaky_relu", 0.25),
    "hardsigmoid": (
        lambda m, x: m(
            relax.op.clip(
                m(relax.op.add(m(relax.op.multiply(x, number(1 / 6))), number(0.5))), 0, 1
            )
        ),
        "hardsigmoid",
        None,
    ),
}


def of(function, inputs=X, scale=0.05, zero=4, out=(0.03, -90)):
    return module(inputs, lambda m, x: m.q(function(m, m.dq(x, scale, zero)), *out))


@pytest.mark.parametrize("name", SPELLED)
def test_spellings_are_recognized(name):
    spelled, function, parameter = SPELLED[name]
    before = of(spelled)
    after = LowerPointwise()(before)
    assert ops(after) == [names.LUT]
    (x,) = random_inputs(before)
    source = Source(float(np.float32(0.05)), 4, -128, 127, 8)
    table = pointwise_table(function, source, OUT, parameter)
    np.testing.assert_array_equal(interpret(after, [x])[0], table[x.astype(int) + 128])


def test_each_channel_has_a_table_of_its_own():
    scale = np.linspace(0.01, 0.1, 8).astype(np.float32)
    before = of(silu, scale=scale, zero=np.arange(8))
    after = LowerPointwise()(before)
    assert ops(after) == [names.LUT]
    (x,) = random_inputs(before)
    found = interpret(after, [x])[0]
    for channel in range(8):
        source = Source(float(scale[channel]), channel, -128, 127, 8)
        table = pointwise_table("silu", source, OUT)
        np.testing.assert_array_equal(found[..., channel], table[x[..., channel].astype(int) + 128])


def test_only_codes_that_are_there_have_an_entry():
    before = module(
        {"x": ((3, 8), "float32")},
        lambda m, x: m.q(silu(m, m.dq(m.q(x, 0.01, 0, "int16", bounds=(-2048, 2047)), 0.01)), 0.03),
    )
    after = LowerPointwise()(before)
    (call,) = [b for b in bindings(after) if names.LUT in str(b)]
    assert tuple(call.value.args[2].value.numpy().shape) == (1, 4096)


def bindings(mod):
    return mod["main"].body.blocks[0].bindings


def test_an_unknown_function_is_evaluated_for_each_code():
    def sine_like(m, x):
        e = m(relax.op.tanh(m(relax.op.multiply(x, x))))
        return m(relax.op.subtract(e, m(relax.op.abs(x))))

    before = of(sine_like)
    after = LowerPointwise()(before)
    assert ops(after) == [names.LUT]
    (x,) = random_inputs(before)
    real = (x.astype(np.float64) - 4) * float(np.float32(0.05))
    wanted = quantize(np.tanh(real * real) - np.abs(real), OUT)
    np.testing.assert_array_equal(interpret(after, [x])[0], wanted)


def unchanged(inputs, body):
    before = module(inputs, body)
    lowered = LowerPointwise()
    assert ops(lowered(before)) == ops(before) and not lowered.declines


def test_near_misses_stay():
    """Of two tensors; sums and products alone; GELU, which has an operator of its own."""
    two = {**X, "y": X["x"]}
    unchanged(
        two,
        lambda m, x, y: m.q(
            m(relax.op.multiply(m.dq(x, 0.1), m(relax.op.sigmoid(m.dq(y, 0.1))))), 0.1
        ),
    )
    unchanged(X, lambda m, x: m.q(m(relax.op.multiply(m.dq(x, 0.1), m.dq(x, 0.1))), 0.1))
    unchanged(X, lambda m, x: m.q(m(relax.op.erf(m.dq(x, 0.1))), 0.1))
    unchanged(X, lambda m, x: m.q(m(relax.op.multiply(m.dq(x, 0.1), number(2))), 0.1))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (of(silu, {"x": ((3, 8), "int32")}), "int32 codes: 16 bits at most"),
        (of(silu, out=(np.full(8, 0.03), np.zeros(8))), "a scale for each index"),
        (of(lambda m, x: m(relax.op.log(x))), "not finite for some codes"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerPointwise(), mod, reason)
