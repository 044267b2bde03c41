import logging

import pytest
import tvm
from tvm import relax

from tests.relay_passes.modules import module, ops
from vitq.relay_passes.expressions import constant, op_name
from vitq.relay_passes.reading.context import DeclineError
from vitq.relay_passes.rewriting import BindingPass

INPUT = {"x": ((2, 4), "int8")}


class DropReshape(BindingPass):
    """Removes reshapes of rank 1, refuses those of rank 3."""

    def rewrite(self, var, value, ctx):
        if op_name(value) != "relax.reshape":
            return None
        rank = len(value.ty.shape.values)
        if rank == 3:
            raise DeclineError("rank 3")
        return value.args[0] if rank == 1 else None


def reshapes(*shapes):
    def body(b, x):
        for shape in shapes:
            x = b(relax.op.reshape(x, shape))
        return b(relax.op.permute_dims(x))

    return module(INPUT, body)


def test_readers_see_the_replacement_and_dead_bindings_go():
    after = DropReshape()(reshapes((8,), (4, 2)))
    tvm.ir.assert_structural_equal(after, reshapes((4, 2)))


def test_a_pass_that_changes_nothing_keeps_the_module():
    mod = reshapes((4, 2))
    tvm.ir.assert_structural_equal(DropReshape()(mod), mod)


def test_a_refusal_is_logged_with_its_node(caplog):
    step = DropReshape()
    with caplog.at_level(logging.DEBUG, "vitq.relay_passes.rewriting"):
        assert ops(step(reshapes((2, 2, 2)))) == ["reshape", "permute_dims"]
    assert step.declines == {"lv": "DropReshape: rank 3"}
    assert "DropReshape leaves lv (relax.reshape): rank 3" in caplog.text


def test_constants_keep_float64():
    assert str(constant(0.1 + 0.2).ty.dtype) == "float64"


@pytest.mark.parametrize("results", [1, 2])
def test_one_or_several_results(results):
    mod = module(INPUT, lambda b, x: [b(relax.op.reshape(x, (4, 2))) for _ in range(results)])
    after = DropReshape()(mod)
    tvm.ir.assert_structural_equal(after, mod)
