import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module, ops
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import ivit_shiftmax, ivit_softmax_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    SMALLEST_WIDE_SUM,
    code_params,
    normalize_params,
    shiftmax,
    shiftmax_codes,
    shiftmax_params,
)
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_shiftmax import LowerShiftmax

INPUT = {"x": ((2, 3, 7), "int32")}
SCALE = 0.0123456789
SCORES = np.random.default_rng(1).integers(-500, 500, (2, 3, 7)).astype(np.int32)


def deferred(axis=-1, keepdims=True, out=(1 / 255, 0, "uint8")):
    def body(b, x):
        x = b.real(x, SCALE)
        largest = b(relax.op.max(x, axis=axis, keepdims=keepdims))
        return b.q(b(relax.op.exp(b(relax.op.subtract(x, largest)))), *out)

    return module(INPUT, body)


def normalized(axis=-1, out=(1 / 256, -128, "int8"), **kwargs):
    return module(
        INPUT, lambda b, x: b.q(b(relax.op.nn.softmax(b.real(x, SCALE), axis=axis)), *out, **kwargs)
    )


def test_unnormalized_codes():
    after = LowerShiftmax()(deferred())
    assert ops(after) == [names.SHIFTMAX_CODES]
    want = shiftmax_codes(SCORES, code_params(SCALE))
    np.testing.assert_array_equal(interpret(after, [SCORES])[0], want)
    float_codes = interpret(deferred(), [SCORES])[0].astype(int)
    assert np.abs(want - float_codes).max() <= 1  # numerics/shiftmax.py: within 0.5 + 0.08 codes


def test_normalized_probabilities():
    after = LowerShiftmax()(normalized())
    assert ops(after) == [names.SHIFTMAX]
    out = QuantParams(np.float32(1 / 256), np.int32(-128), -128, 127)
    norm = normalize_params(1 / float(out.scale), SMALLEST_WIDE_SUM, out)
    want = shiftmax(SCORES, shiftmax_params(SCALE), norm)
    np.testing.assert_array_equal(interpret(after, [SCORES])[0], want)
    assert np.abs(want - interpret(normalized(), [SCORES])[0].astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (deferred(axis=1), "not over the last axis"),
        (deferred(out=(1 / 256, 0, "uint8")), "1/255"),
        (deferred(out=(1 / 255, 1, "uint8")), "1/255"),
        (deferred(out=(1 / 255, 0, "int8")), "not uint8"),
        (normalized(axis=1), "not over the last axis"),
        (normalized(out=(np.full(7, 0.01),)), "a scale for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerShiftmax(), mod, reason)


def test_float_scores_stay():
    mod = module(
        {"x": ((2, 7), "float32")}, lambda b, x: b.q(b(relax.op.nn.softmax(x)), 1 / 255, 0, "uint8")
    )
    assert_declines(LowerShiftmax(), mod, "scores are not quantized")


def test_an_exponential_without_its_maximum_stays():
    mod = module(INPUT, lambda b, x: b.q(b(relax.op.exp(b.real(x, SCALE))), 1 / 255, 0, "uint8"))
    assert_declines(LowerShiftmax(), mod, "exp(x - max(x))")


IVIT_OUT = (1 / 128, 0, "uint8")


@pytest.mark.parametrize("bounds", [None, (0, 128)])
def test_ivit_probabilities(bounds):
    before = normalized(out=IVIT_OUT, bounds=bounds)
    params = ivit_softmax_params(SCALE)
    expected = module(INPUT, lambda b, x: b(dialect.ivit_shiftmax(x, params)))
    after = assert_rewrites(LowerShiftmax(Nonlinear.IVIT), before, expected)
    want = ivit_shiftmax(SCORES, params)
    np.testing.assert_array_equal(interpret(after, [SCORES])[0], want)
    # SHIFTMAX_MAX_ERROR of numerics/ivit.py is 0.07, 9 codes
    assert np.abs(want - interpret(before, [SCORES])[0].astype(int)).max() <= 9


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (normalized(out=(1 / 127, 0, "uint8")), "1/128 and zero point 0"),
        (normalized(out=(1 / 128, 1, "uint8")), "1/128 and zero point 0"),
        (normalized(out=(1 / 128, 0, "int8")), "not uint8"),
        (normalized(out=(np.full(7, 1 / 128), 0, "uint8")), "not uint8 with one scale"),
        (normalized(out=IVIT_OUT, bounds=(0, 127)), "reach 128, not 127"),
        (normalized(axis=1, out=IVIT_OUT), "not over the last axis"),
        (deferred(), "no unnormalized form"),
    ],
)
def test_ivit_refusals(mod, reason):
    assert_declines(LowerShiftmax(Nonlinear.IVIT), mod, reason)
