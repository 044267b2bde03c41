import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.multiply import int_multiply, multiply_params
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_multiply import LowerMultiply

SHAPE = (2, 5, 8)
FULL = {"a": (SHAPE, "int16"), "b": (SHAPE, "int8")}
OUT = QuantParams(np.float32(3e-2), np.int32(2), -128, 127)


def product(inputs=FULL, a_scale=2e-4, factor=None):
    def body(m, a, b):
        left = m.dq(a, a_scale, 1)
        if factor is not None:
            left = m(relax.op.multiply(left, constant(np.float32(factor))))
        return m.q(m(relax.op.multiply(left, m.dq(b, 0.05, -3))), 3e-2, 2)

    return module(inputs, body)


def want(a, b, factor=1.0):
    scales = float(np.float32(2e-4)) * factor, float(np.float32(0.05))
    return int_multiply(a, b, multiply_params(scales[0], 1, scales[1], -3, OUT))


@pytest.mark.parametrize("shape", [SHAPE, (1, 5, 8), (8,), (2, 1, 1)])
@pytest.mark.parametrize("factor", [None, 0.25])
def test_integers_and_structure(shape, factor):
    before = product({**FULL, "b": (shape, "int8")}, factor=factor)
    after = LowerMultiply()(before)
    assert ops(after) == [names.MULTIPLY]
    a, b = random_inputs(before)
    np.testing.assert_array_equal(interpret(after, [a, b])[0], want(a, b, factor or 1.0))


def test_both_may_be_broadcast():
    before = product({"a": ((2, 1, 8), "int16"), "b": ((5, 1), "int8")})
    a, b = random_inputs(before)
    found = interpret(LowerMultiply()(before), [a, b])[0]
    assert found.shape == SHAPE
    np.testing.assert_array_equal(found, want(a, b))


def test_a_constant_factor_keeps_its_codes():
    table = np.random.default_rng(0).integers(-100, 100, (5, 8)).astype(np.int16)
    mod = module(
        {"a": (SHAPE, "int16")},
        lambda m, a: m.q(m(relax.op.multiply(m.dq(a, 2e-4, 1), m.dq(table, 0.05, -3))), 3e-2, 2),
    )
    a = random_inputs(mod)[0]
    np.testing.assert_array_equal(interpret(LowerMultiply()(mod), [a])[0], want(a, table))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (product({**FULL, "b": (SHAPE, "int32")}), "more than 16 bits"),
        (product(a_scale=np.full(8, 0.1)), "a scale for each channel"),
        (
            module(
                {"a": (SHAPE, "int16"), "b": (SHAPE, "float32")},
                lambda m, a, b: m.q(m(relax.op.multiply(m.dq(a, 0.1), b)), 0.1),
            ),
            "a factor is not quantized",
        ),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerMultiply(), mod, reason)
