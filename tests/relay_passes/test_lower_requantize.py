import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module, ops, random_inputs
from vitq.numerics.dyadic import requantize, to_dyadic
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_requantize import LowerRequantize

INPUT = {"x": ((3, 4), "int16")}
SCALE, OUT = np.float32(2e-4), np.float32(0.05)


def again(scale=SCALE, zero_point=7, out=OUT, out_zero=3, axis=-1):
    return module(
        INPUT, lambda b, x: b.q(b.dq(x, scale, zero_point, axis), out, out_zero, axis=axis)
    )


@pytest.mark.parametrize("scale", [SCALE, np.array([1e-4, 2e-4, 3e-4, 4e-4], np.float32)])
def test_integers_and_structure(scale):
    before = again(scale)
    after = LowerRequantize()(before)
    assert ops(after) == [names.REQUANTIZE]
    x = random_inputs(before)[0]
    dyadic = to_dyadic(scale.astype(np.float64) / float(OUT))
    want = requantize(x.astype(np.int64) - 7, dyadic, 3, -128, 127)
    np.testing.assert_array_equal(interpret(after, [x])[0], want)


def test_constant_codes_are_requantized_here():
    codes = np.arange(-6, 6, dtype=np.int16).reshape(3, 4) * 2000
    dyadic = to_dyadic(float(SCALE) / float(OUT))
    known = requantize(codes.astype(np.int64) - 7, dyadic, 3, -128, 127).astype(np.int8)
    inputs = {"x": ((3, 4), "int8")}
    before = module(
        inputs,
        lambda b, x: b(relax.op.concat([b.q(b.dq(codes, SCALE, 7), OUT, 3), x], axis=0)),
    )
    expected = module(inputs, lambda b, x: b(relax.op.concat([constant(known), x], axis=0)))
    assert_rewrites(LowerRequantize(), before, expected)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (again(np.full(4, 0.1), [1, 2, 3, 4]), "input has a zero point for each"),
        (again(out=np.full(4, 0.1), out_zero=[1, 2, 3, 4]), "output has a zero point for each"),
        (again(np.full(3, 0.1), axis=0), "not the last"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerRequantize(), mod, reason)
