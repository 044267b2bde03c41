import numpy as np
import pytest
import tvm
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops
from vitq.relay_passes.expressions import MAIN, constant
from vitq.relay_passes.fold_clamp import FoldClamp
from vitq.relay_passes.interpreter.interpreter import interpret

X = {"x": ((3, 5), "float32")}


def number(value):
    return constant(np.float32(value))


CLAMPS = {
    "relu": (lambda m, x: m(relax.op.nn.relu(x)), (3, 127)),
    "relu6": (lambda m, x: m(relax.op.minimum(m(relax.op.nn.relu(x)), number(6))), (3, 63)),
    "clip": (lambda m, x: m(relax.op.clip(x, -1, 2)), (-7, 23)),
    "maximum of minimum": (
        lambda m, x: m(relax.op.maximum(m(relax.op.minimum(x, number(4))), number(-2))),
        (-17, 43),
    ),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_a_clamp_becomes_bounds(name):
    clamp, bounds = CLAMPS[name]
    before = module(X, lambda m, x: m.q(clamp(m, x), 0.1, 3))
    after = FoldClamp()(before)
    expected = module(X, lambda m, x: m.q(x, 0.1, 3, bounds=bounds))
    tvm.ir.assert_structural_equal(after[MAIN].body, expected[MAIN].body, map_free_vars=True)
    x = np.linspace(-9, 9, 15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_array_equal(interpret(after, [x])[0], interpret(before, [x])[0])


def test_hardsigmoid_is_a_function_and_no_clamp():
    def body(m, x):
        ramp = m(relax.op.add(m(relax.op.multiply(m.dq(x, 0.1), number(1 / 6))), number(0.5)))
        return m.q(m(relax.op.clip(ramp, 0, 1)), 0.1)

    before = module({"x": ((3, 5), "int8")}, body)
    assert ops(FoldClamp()(before)) == ops(before)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (module(X, lambda m, x: m.q(m(relax.op.clip(x, 1, 2)), 0.1, 3)), "leave out the zero"),
        (module(X, lambda m, x: m.q(m(relax.op.nn.relu(x)), 0.1, 127)), "leave out the zero"),
        (
            module(X, lambda m, x: m.q(m(relax.op.nn.relu(x)), np.full(5, 0.1), np.zeros(5))),
            "a clamp before a scale for each channel",
        ),
    ],
)
def test_refusals(mod, reason):
    assert_declines(FoldClamp(), mod, reason)
