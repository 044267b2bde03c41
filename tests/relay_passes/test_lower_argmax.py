import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_argmax import LowerArgmax


def argmax(shape=(2, 5, 3, 4), axis=1, dtype="int16", scale=2e-4, out=(1.0, 0), to="uint8"):
    def build(b, x):
        found = b(relax.op.argmax(b.dq(x, scale, 9), axis))
        return b.q(b(relax.op.astype(found, "float32")), *out, dtype=to)

    return module({"x": (shape, dtype)}, build)


@pytest.mark.parametrize(
    ("shape", "axis", "around"),
    [
        ((2, 5, 3, 4), 1, (["reshape"], ["reshape"])),
        ((2, 5, 7), 1, ([], [])),
        ((2, 3, 4, 5), -1, (["permute_dims", "reshape"], ["reshape"])),
        ((2, 5), 1, (["reshape"], ["reshape"])),
    ],
)
def test_integers_and_structure(shape, axis, around):
    before = argmax(shape, axis)
    after = LowerArgmax()(before)
    assert ops(after) == [*around[0], names.ARGMAX, *around[1]]
    x = random_inputs(before)[0] // 16384  # with ties
    np.testing.assert_array_equal(interpret(after, [x])[0], x.argmax(axis))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (argmax(axis=0), "over the pictures"),
        (argmax(axis=None), "over all axes"),
        (argmax(dtype="int32"), "16 bits"),
        (argmax(shape=(1, 257, 3)), "257 classes"),
        (argmax((2, 5, 3), scale=np.full(3, 0.1)), "a scale for each channel"),
        (argmax(out=(0.5, 0)), "not uint8 of scale 1"),
        (argmax(out=(1.0, 3)), "not uint8 of scale 1"),
        (argmax(to="int8"), "not uint8 of scale 1"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerArgmax(), mod, reason)
