import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.dyadic import requantize, to_dyadic
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_pooling import LowerPooling

L = 7


def mean(axis=1, keepdims=False, dtype="int16", scale=2e-4, out=(0.01, 4)):
    return module(
        {"x": ((2, L, 6), dtype)},
        lambda b, x: b.q(b(relax.op.mean(b.dq(x, scale, 9), axis, keepdims)), *out),
    )


@pytest.mark.parametrize("keepdims", [False, True])
def test_integers_and_structure(keepdims):
    before = mean(keepdims=keepdims)
    after = LowerPooling()(before)
    assert ops(after) == [names.MEAN, *(["reshape"] if keepdims else [])]
    x = random_inputs(before)[0]
    acc = (x.astype(np.int64) - 9).sum(axis=1, keepdims=keepdims)
    dyadic = to_dyadic(float(np.float32(2e-4)) / (L * float(np.float32(0.01))))
    want = requantize(acc, dyadic, 4, -128, 127)
    np.testing.assert_array_equal(interpret(after, [x])[0], want)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (mean(axis=2), "axis 1"),
        (mean(dtype="int32"), "16 bits"),
        (mean(out=(np.full(6, 0.1),)), "a scale for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerPooling(), mod, reason)
