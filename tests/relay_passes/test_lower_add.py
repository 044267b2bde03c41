import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.add import add_params, int_add
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_add import LowerAdd

SHAPE = (2, 5, 8)
FULL = {"a": (SHAPE, "int16"), "b": (SHAPE, "int8")}
OUT = QuantParams(np.float32(3e-4), np.int32(2), -(2**15), 2**15 - 1)


def total(inputs=FULL, a_scale=2e-4, swap=False, out=(3e-4, 2, "int16")):
    def body(m, a, b):
        parts = [m.dq(a, a_scale, 1), m.dq(b, 0.05, -3)]
        return m.q(m(relax.op.add(*(parts[::-1] if swap else parts))), *out)

    return module(inputs, body)


def want(a, b):
    p = add_params(float(np.float32(2e-4)), 1, float(np.float32(0.05)), -3, OUT)
    return int_add(a, b, p)


@pytest.mark.parametrize("inputs", [FULL, {**FULL, "b": ((1, 5, 8), "int8")}])
@pytest.mark.parametrize("swap", [False, True])
def test_integers_and_structure(inputs, swap):
    before = total(inputs, swap=swap)
    after = LowerAdd()(before)
    assert ops(after) == [names.ADD]
    a, b = random_inputs(before)
    if swap and a.shape == b.shape:
        p = add_params(float(np.float32(0.05)), -3, float(np.float32(2e-4)), 1, OUT)
        np.testing.assert_array_equal(int_add(b, a, p), want(a, b))
    np.testing.assert_array_equal(interpret(after, [a, b])[0], want(a, b))


@pytest.mark.parametrize("shape", [(2, 5, 1), (2, 1, 8), (1, 5, 1), (5, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_what_broadcasts_along_inner_axes_is_repeated_before(shape, swap):
    before = total({**FULL, "b": (shape, "int8")}, swap=swap)
    after = LowerAdd()(before)
    assert ops(after) == ["broadcast_to", names.ADD]
    a, b = random_inputs(before)
    np.testing.assert_array_equal(interpret(after, [a, b])[0], want(a, b))


def test_a_constant_addend_keeps_its_codes():
    position = np.random.default_rng(0).integers(-100, 100, (1, 5, 8)).astype(np.int16)
    mod = module(
        {"a": (SHAPE, "int16")},
        lambda m, a: m.q(
            m(relax.op.add(m.dq(a, 2e-4, 1), m.dq(position, 0.05, -3))), 3e-4, 2, "int16"
        ),
    )
    a = random_inputs(mod)[0]
    np.testing.assert_array_equal(interpret(LowerAdd()(mod), [a])[0], want(a, position))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (total({**FULL, "b": (SHAPE, "int32")}), "more than 16 bits"),
        (total({"a": ((2, 1, 8), "int16"), "b": ((1, 5, 8), "int8")}), "broadcast"),
        (total(a_scale=np.full(8, 0.1)), "a scale for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerAdd(), mod, reason)


def test_a_float_addend_stays():
    mod = module(
        {"a": (SHAPE, "int16"), "b": (SHAPE, "float32")},
        lambda m, a, b: m.q(m(relax.op.add(m.dq(a, 0.1), b)), 0.1),
    )
    assert_declines(LowerAdd(), mod, "not quantized")
