import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.multiply import (
    int_multiply,
    int_multiply_add,
    multiply_add_params,
    multiply_params,
)
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


def sum_of_products(scale=0.05):
    """A rotation: the same codes twice, and two tables."""
    tables = [np.random.default_rng(i).integers(-99, 99, (5, 8)).astype(np.int16) for i in (0, 1)]

    def body(m, a, b):
        one = m(relax.op.multiply(m.dq(a, 2e-4, 1), m.dq(tables[0], 0.05)))
        two = m(relax.op.multiply(m.dq(b, 2e-4, -3), m.dq(tables[1], scale)))
        return m.q(m(relax.op.add(one, two)), 3e-2, 2)

    return module({"a": (SHAPE, "int16"), "b": (SHAPE, "int16")}, body), tables


def test_a_sum_of_products_of_one_step():
    before, (c, d) = sum_of_products()
    after = LowerMultiply()(before)
    assert ops(after) == [names.MULTIPLY_ADD]
    a, b = random_inputs(before)
    step = float(np.float32(2e-4)) * float(np.float32(0.05))
    p = multiply_add_params(step, (1, 0, -3, 0), OUT)
    np.testing.assert_array_equal(interpret(after, [a, b])[0], int_multiply_add(a, c, b, d, p))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (product({**FULL, "b": (SHAPE, "int32")}), "more than 16 bits"),
        (sum_of_products(0.06)[0], "two products of different steps"),
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
