import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.int_layernorm import int_layernorm, layernorm_params
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_layernorm import LowerLayernorm

C = 12
GAMMA = np.linspace(-1, 2, C, dtype=np.float32)
BETA = np.linspace(0, 1, C, dtype=np.float32)
SCALE = np.float32(2e-5)


def norm(dtype="int16", axes=(-1,), eps=0.07, out=(0.02, 3), size=C, **attrs):
    parameters = constant(GAMMA[:size]), constant(BETA[:size])

    def body(b, x):
        y = relax.op.nn.layer_norm(b.dq(x, SCALE, 5), *parameters, axes=list(axes), epsilon=eps)
        return b.q(b(y), *out)

    return module({"x": ((2, 3, C), dtype)}, body)


@pytest.mark.parametrize("eps", [0.07, 1e-6])
def test_integers_carry_eps(eps):
    before = norm(eps=eps)
    after = LowerLayernorm()(before)
    assert ops(after) == [names.LAYERNORM]
    x = random_inputs(before)[0]
    out = QuantParams(np.float32(0.02), np.int32(3), -128, 127)
    want = int_layernorm(x, layernorm_params(float(SCALE), eps, GAMMA, BETA, out))
    np.testing.assert_array_equal(interpret(after, [x])[0], want)
    assert np.abs(want - interpret(before, [x])[0]).max() <= 1  # 14-bit multipliers, ties


def test_eps_changes_the_result():
    x = random_inputs(norm())[0]
    a, b = (interpret(LowerLayernorm()(norm(eps=eps)), [x])[0] for eps in (0.07, 1e-6))
    assert np.any(a != b)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (norm(axes=(1,), size=3), "only the last axis"),
        (norm(dtype="int32"), "16 bits at most"),
        (norm(out=(np.full(C, 0.02),)), "a scale for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerLayernorm(), mod, reason)
