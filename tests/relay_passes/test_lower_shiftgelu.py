import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    module,
    ops,
    random_inputs,
)
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import ivit_gelu_params, ivit_shiftgelu
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params, shiftgelu
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_shiftgelu import LowerShiftgelu

INPUT = {"x": ((4, 6), "int16")}


def f(value):
    return constant(np.float32(value))


def erf_of(b, x, root=2**0.5):
    return b(relax.op.add(b(relax.op.erf(b(relax.op.divide(x, f(root))))), f(1)))


SPELLINGS = {
    "gelu": lambda b, x: b(relax.op.nn.gelu(x)),
    "tanh": lambda b, x: b(relax.op.nn.gelu_tanh(x)),
    "half last": lambda b, x: b(relax.op.multiply(b(relax.op.multiply(x, erf_of(b, x))), f(0.5))),
    "half first": lambda b, x: b(relax.op.multiply(b(relax.op.multiply(x, f(0.5))), erf_of(b, x))),
    "over 2": lambda b, x: b(relax.op.multiply(b(relax.op.divide(x, f(2))), erf_of(b, x))),
}


def gelu(form, inputs=INPUT, out=(0.01, -90)):
    return module(inputs, lambda b, x: b.q(form(b, b.dq(x, 1.5e-4, 40)), *out))


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling(name):
    before = gelu(SPELLINGS[name])
    after = LowerShiftgelu()(before)
    assert ops(after) == [names.SHIFTGELU]
    x = random_inputs(before)[0]
    out = QuantParams(np.float32(0.01), np.int32(-90), -128, 127)
    want = shiftgelu(x, gelu_params(float(np.float32(1.5e-4)), 40, out))
    np.testing.assert_array_equal(interpret(after, [x])[0], want)
    assert np.abs(want - interpret(before, [x])[0]).max() <= 1  # MAX_ERROR is 0.04 of a step


@pytest.mark.parametrize(
    "form",
    [
        lambda b, x: b(relax.op.multiply(b(relax.op.multiply(x, erf_of(b, x))), f(0.4))),
        lambda b, x: b(relax.op.multiply(b(relax.op.multiply(x, erf_of(b, x, 1.4))), f(0.5))),
        lambda b, x: b(relax.op.nn.relu(x)),
    ],
)
def test_other_functions_stay(form):
    assert_declines(LowerShiftgelu(), gelu(form))


def test_refusals():
    wide = gelu(SPELLINGS["gelu"], {"x": ((4, 6), "int32")})
    assert_declines(LowerShiftgelu(), wide, "16 bits at most")
    channels = gelu(SPELLINGS["gelu"], out=(np.full(6, 0.1),))
    assert_declines(LowerShiftgelu(), channels, "a scale for each channel")


def test_ivit():
    before = gelu(SPELLINGS["gelu"])
    out = QuantParams(np.float32(0.01), np.int32(-90), -128, 127)
    params = ivit_gelu_params(float(np.float32(1.5e-4)), 40, out)
    expected = module(INPUT, lambda b, x: b(dialect.ivit_shiftgelu(x, params, "int8")))
    after = assert_rewrites(LowerShiftgelu(Nonlinear.IVIT), before, expected)
    x = random_inputs(before)[0]
    want = ivit_shiftgelu(x, params)
    np.testing.assert_array_equal(interpret(after, [x])[0], want)
    # SHIFTGELU_MAX_ERROR + |x| / 128 of numerics/ivit.py at |x| <= 4.9, in steps of 0.01
    assert np.abs(want - interpret(before, [x])[0]).max() <= 8


def test_ivit_refusals():
    wide = gelu(SPELLINGS["gelu"], {"x": ((4, 6), "int32")})
    assert_declines(LowerShiftgelu(Nonlinear.IVIT), wide, "16 bits at most")
    assert_declines(LowerShiftgelu(Nonlinear.IVIT), gelu(lambda b, x: b(relax.op.nn.relu(x))))
