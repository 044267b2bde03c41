import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.int_rmsnorm import int_rmsnorm, rmsnorm_params
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_rmsnorm import LowerRmsnorm

OUT = QuantParams(np.float32(0.03), np.int32(-9), -128, 127)
GAMMA = np.linspace(-1, 2, 12).astype(np.float32)
SCALE = 2e-3


def norm(m, x, spelling="divide", eps=0.3, gamma=GAMMA, axis=-1):
    square = relax.op.multiply(x, x) if spelling != "power" else None
    square = m(square if square is not None else relax.op.power(x, constant(np.float32(2))))
    moved = m(relax.op.add(m(relax.op.mean(square, axis, True)), constant(np.float32(eps))))
    if spelling == "rsqrt":
        unit = m(relax.op.multiply(x, m(relax.op.rsqrt(moved))))
    else:
        unit = m(relax.op.divide(x, m(relax.op.sqrt(moved))))
    return unit if gamma is None else m(relax.op.multiply(unit, constant(gamma)))


def normalized(dtype="int16", zero=0, scale=SCALE, **how):
    return module(
        {"x": ((2, 5, 12), dtype)}, lambda m, x: m.q(norm(m, m.dq(x, scale, zero), **how), 0.03, -9)
    )


@pytest.mark.parametrize("spelling", ["divide", "rsqrt", "power"])
@pytest.mark.parametrize("gamma", [GAMMA, None])
def test_integers_and_structure(spelling, gamma):
    before = normalized(spelling=spelling, gamma=gamma)
    after = LowerRmsnorm()(before)
    assert ops(after) == [names.RMSNORM]
    (x,) = random_inputs(before)
    factors = np.ones(12, np.float32) if gamma is None else gamma
    p = rmsnorm_params(float(np.float32(SCALE)), 0.3, factors, OUT)
    np.testing.assert_array_equal(interpret(after, [x])[0], int_rmsnorm(x, p))


def test_a_zero_point_is_subtracted_before():
    before = normalized("uint8", 100)
    after = LowerRmsnorm()(before)
    assert ops(after) == [names.REQUANTIZE, names.RMSNORM]
    (x,) = random_inputs(before)
    p = rmsnorm_params(float(np.float32(SCALE)), 0.3, GAMMA, OUT)
    np.testing.assert_array_equal(interpret(after, [x])[0], int_rmsnorm(x.astype(int) - 100, p))


def test_a_near_miss_stays():
    """The mean of another tensor's squares."""
    both = {"x": ((5, 12), "int16"), "y": ((5, 12), "int16")}

    def body(m, x, y):
        x, y = m.dq(x, 0.1), m.dq(y, 0.1)
        mean = m(relax.op.mean(m(relax.op.multiply(y, y)), -1, True))
        root = m(relax.op.sqrt(m(relax.op.add(mean, constant(np.float32(1e-6))))))
        return m.q(m(relax.op.divide(x, root)), 0.1)

    before = module(both, body)
    assert ops(LowerRmsnorm()(before)) == ops(before)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (normalized(axis=1), "normalized over axes [1]: only the last axis"),
        (normalized("int32"), "int32 codes: 16 bits at most"),
        (normalized("int16", 5), "codes of 16 bits have a zero point"),
        (normalized(scale=np.full(12, 0.1)), "a scale for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerRmsnorm(), mod, reason)
