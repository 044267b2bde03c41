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
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import MAIN, bindings_of, constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_linear import LowerLinear

K, N = 24, 6
RNG = np.random.default_rng(3)
WEIGHT = RNG.integers(-127, 128, (K, N)).astype(np.int8)
SCALE = RNG.uniform(0.001, 0.003, N).astype(np.float32)
BIAS = RNG.integers(-5000, 5000, N).astype(np.int32)
X_SCALE, X_ZERO = np.float32(0.02), 7
CODES = {"x": ((2, 5, K), "int8")}


FACTORS = RNG.uniform(0.2, 2, N).astype(np.float32)


def linear(
    bias="codes",
    x_dtype="int8",
    weight=WEIGHT,
    w_zero=0,
    w_axis=1,
    out=(0.05, 3),
    scalings=(),
    **kwargs,
):
    def body(b, x):
        w = b.dq(weight, SCALE if w_axis == 1 else np.ones(K), w_zero, axis=w_axis)
        y = b(relax.op.matmul(b.dq(x, X_SCALE, X_ZERO), w))
        if isinstance(bias, str):
            y = b(relax.op.add(y, b.dq(BIAS, X_SCALE * SCALE, 0, axis=0)))
        elif bias is not None:
            y = b(relax.op.add(y, constant(bias)))
        for operator, factor in scalings:
            y = b(operator(y, constant(np.asarray(factor, np.float32))))
        return b.q(y, *out, **kwargs)

    return module({"x": ((2, 5, K), x_dtype)}, body)


def expected(x, bias, out_scale, zero_point, low=-128, high=127, scaled=lambda scale: scale):
    acc = (x.astype(np.int64) - X_ZERO) @ WEIGHT.astype(np.int64) + bias
    acc_scale = scaled(float(X_SCALE) * SCALE.astype(np.float64))
    factor = acc_scale / np.float64(np.float32(out_scale))
    return np.clip(rescale(acc, to_dyadic(factor)) + zero_point, low, high)


@pytest.mark.parametrize("x_dtype", ["int8", "uint8"])
def test_integers_and_structure(x_dtype):
    before = linear(x_dtype=x_dtype)
    after = LowerLinear()(before)
    assert ops(after) == [names.LINEAR]
    call = bindings_of(after[MAIN])[0].value
    np.testing.assert_array_equal(dialect.array(call, 1), WEIGHT.T)
    assert dialect.scalars(call) == (-128, 127)
    inputs = random_inputs(before)
    np.testing.assert_array_equal(interpret(after, inputs)[0], expected(*inputs, BIAS, 0.05, 3))
    # a float product on a tie may round the other way
    assert_same_results(before, after, atol=1)


def test_a_missing_bias_and_a_float_bias():
    x = random_inputs(linear(None))[0]
    got = interpret(LowerLinear()(linear(None)), [x])[0]
    np.testing.assert_array_equal(got, expected(x, 0, 0.05, 3))
    real = RNG.normal(size=N).astype(np.float32)
    got = interpret(LowerLinear()(linear(real)), [x])[0]
    codes = np.rint(real.astype(np.float64) / (float(X_SCALE) * SCALE.astype(np.float64)))
    np.testing.assert_array_equal(got, expected(x, codes.astype(np.int64), 0.05, 3))


def test_a_bias_is_taken_as_it_is_only_where_all_its_scales_are_the_accumulators():
    """One channel of another scale: all of it is rounded anew."""
    scale = X_SCALE * SCALE
    scale[2] *= 2
    codes = BIAS.copy()
    codes[2] = 1001

    def body(b, x):
        y = b(relax.op.matmul(b.dq(x, X_SCALE, X_ZERO), b.dq(WEIGHT, SCALE, 0, axis=1)))
        return b.q(b(relax.op.add(y, b.dq(codes, scale, 0, axis=0))), 0.05, 3)

    x = random_inputs(linear())[0]
    bias = codes.copy()
    bias[2] *= 2
    got = interpret(LowerLinear()(module(CODES, body)), [x])[0]
    np.testing.assert_array_equal(got, expected(x, bias, 0.05, 3))


def test_per_channel_output_bounds_and_type():
    scale, zero = RNG.uniform(0.02, 0.1, N).astype(np.float32), np.arange(N)
    x = random_inputs(linear())[0]
    mod = linear(out=(scale, zero), axis=2, dtype="int16", bounds=(-100, 90))
    after = LowerLinear()(mod)
    got = interpret(after, [x])[0]
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, expected(x, BIAS, scale, zero, -100, 90))


def test_factors_between_the_bias_and_the_quantizer():
    scalings = [(relax.op.multiply, FACTORS), (relax.op.divide, 0.3), (relax.op.multiply, [[1.7]])]
    before = linear(scalings=scalings)
    after = LowerLinear()(before)
    assert ops(after) == [names.LINEAR]
    x = random_inputs(before)[0]
    third, last = float(np.float32(0.3)), float(np.float32(1.7))
    want = expected(
        x, BIAS, 0.05, 3, scaled=lambda scale: scale * FACTORS.astype(np.float64) / third * last
    )
    np.testing.assert_array_equal(interpret(after, [x])[0], want)
    # a float product on a tie may round the other way
    assert_same_results(before, after, atol=1)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (linear(x_dtype="int16"), "8 bits are needed"),
        (linear(w_zero=3), "zero point that is not 0"),
        (linear(w_axis=0), "a scale for each output channel"),
        (linear(weight=WEIGHT.astype(np.int16)), "int8 is needed"),
        (linear(bias=np.ones((5, N), np.float32)), "no bias"),
        (linear(scalings=[(relax.op.multiply, -FACTORS)]), "not positive"),
        (linear(scalings=[(relax.op.divide, 0.0)]), "not positive"),
        (linear(scalings=[(relax.op.multiply, np.ones((5, 1)))]), "not one for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerLinear(), mod, reason)


def test_float_weights_stay():
    weight = constant(np.ones((K, N), np.float32))
    mod = module(CODES, lambda b, x: b.q(b(relax.op.matmul(b.dq(x, 0.1), weight)), 0.1))
    assert_declines(LowerLinear(), mod, "float constant")


def test_a_product_of_activations_is_left_to_another_pass():
    inputs = {"x": ((2, 3, 4), "int8"), "y": ((2, 4, 5), "int8")}
    mod = module(inputs, lambda b, x, y: b.q(b(relax.op.matmul(b.dq(x, 0.1), b.dq(y, 0.1))), 0.1))
    step = LowerLinear()
    assert_declines(step, mod)
    assert not step.declines
