"""Passes as TVM passes: what they require and ensure, and the pipeline that TVM knows by name."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import IRModule, relax

from tests.relay_passes import qdq_vit
from tests.relay_passes.modules import module
from tests.relay_passes.test_pipeline import imported
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.requantize import RequantizeParams
from vitq.relay_passes.check_accumulators import CheckAccumulators
from vitq.relay_passes.check_integer_only import CheckIntegerOnly
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.fuse_epilogue import FuseEpilogue
from vitq.relay_passes.lower_shiftmax import LowerShiftmax
from vitq.relay_passes.module_pass import ModulePass
from vitq.relay_passes.pipeline import PassOptions, Report, integerize, phases, vitq_pipeline
from vitq.relay_passes.properties import ATTRIBUTE, CHECKS, Property, recorded
from vitq.relay_passes.sink_dequantize import SinkDequantize

STEPS = [step for _, steps in phases(PassOptions()) for step in steps]
NEEDED = {wanted for step in STEPS for wanted in step.requires} - set(CHECKS)
"""What only the history of a module says; a network may have the rest from the start."""
PROVIDERS = list(dict.fromkeys(s.name for s in STEPS if NEEDED & set(s.ensures)))


def views(shape: tuple[int, ...]) -> IRModule:
    """A squeeze of codes and its dequantize."""

    def body(b, x):
        return b(relax.op.squeeze(b.dq(x, 0.5), [0]))

    return module({"x": (shape, "int8")}, body)


class Lazy(ModulePass):
    """Promises and does nothing."""

    ensures = (Property.LAYOUT_CANONICAL,)

    def __call__(self, mod: IRModule) -> IRModule:
        return mod


ModulePass.ensured_by[Property.LAYOUT_CANONICAL].remove(Lazy.name)


def test_tvm_runs_the_pipeline_by_its_name():
    mod = imported(1)
    found = relax.get_pipeline("vitq")(mod)
    expected = integerize(mod)
    assert tvm_ffi.structural_equal(found, expected.mod)
    assert ATTRIBUTE not in found.attrs
    report = Report()
    vitq_pipeline(PassOptions(fuse_attention=False), report)(mod)
    assert report.outputs == expected.report.outputs
    assert [name for name, _ in report.passes].count("FuseAttention") == 0


def test_instruments_see_each_pass_by_name():
    seen = []

    @tvm.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, mod, info):
            seen.append(info.name)

    with tvm.transform.PassContext(instruments=[Watch()]):
        integerize(imported(1))
    names = {step.name for step in STEPS}
    assert [name for name in seen if name in names] == [step.name for step in STEPS]
    assert seen[0] == "vitq"


def test_each_requirement_is_ensured_before_it():
    ensured = {Property.STATIC_SHAPES}
    for step in STEPS:
        assert set(step.requires) <= ensured, step.name
        ensured |= set(step.ensures)
    assert ensured == set(Property)


@pytest.mark.parametrize("missing", PROVIDERS)
def test_a_pass_that_is_left_out_is_named(missing):
    mod = imported(1)
    steps = [step for _, steps in phases(PassOptions()) for step in steps]
    kept = [step.as_tvm() for step in steps if step.name != missing]
    with pytest.raises(VitqError, match=rf"requires \w+ \(.*{missing} comes before it"):
        tvm.transform.Sequential(kept)(mod)


def test_passes_out_of_order_are_refused():
    text = (
        r"LowerShiftmax requires PRODUCTS_LOWERED \(products of two activations are accumulators "
        r"with a scale\): no pass has ensured it \| LowerMatmul comes before it"
    )
    with pytest.raises(VitqError, match=text):
        LowerShiftmax().as_tvm()(imported(1))
    with pytest.raises(VitqError, match="FuseEpilogue requires OUTPUT_CODES"):
        FuseEpilogue().as_tvm()(imported(1))
    with pytest.raises(VitqError, match="CheckAccumulators requires INTEGER_ONLY"):
        CheckAccumulators().as_tvm()(imported(1))


def test_what_the_ir_shows_needs_no_history():
    with pytest.raises(
        VitqError, match=r"SinkDequantize requires LAYOUT_CANONICAL .*relax.squeeze"
    ):
        SinkDequantize().as_tvm()(views((1, 4)))
    plain = module({"x": ((1, 4), "int8")}, lambda b, x: b(relax.op.reshape(b.dq(x, 0.5), (4,))))
    after = SinkDequantize().as_tvm()(plain)
    assert recorded(after) == {Property.LAYOUT_ON_CODES}
    assert not CHECKS[Property.LAYOUT_ON_CODES](after) and CHECKS[Property.LAYOUT_ON_CODES](plain)


def test_a_pass_that_breaks_its_word_is_found():
    with pytest.raises(VitqError, match="Lazy must ensure LAYOUT_CANONICAL"):
        Lazy().as_tvm()(views((1, 4)))


def test_constants_on_the_left_are_found():
    def body(b, x):
        two = relax.const(np.float32(2))
        return b(relax.op.multiply(two, b.dq(x, 0.5)))

    mod = module({"x": ((4,), "int8")}, body)
    assert len(CHECKS[Property.QDQ_CANONICAL](mod)) == 1


def test_errors_keep_their_type_through_tvm():
    far = RequantizeParams(to_dyadic(np.float64(0.5)), -(2**20), 0, -128, 127)
    mod = module({"x": ((2,), "int32")}, lambda b, x: b(dialect.requantize(x, far, "int8")))
    with pytest.raises(RangeError, match="its input minus zero point can reach"):
        tvm.transform.Sequential([CheckIntegerOnly().as_tvm(), CheckAccumulators().as_tvm()])(mod)


def test_a_dynamic_batch_is_refused_by_the_first_pass():
    with pytest.raises(VitqError, match=r"FoldConstants requires STATIC_SHAPES .*fixed batch size"):
        STEPS[0].as_tvm()(tvm.relax.frontend.onnx.from_onnx(qdq_vit.build(qdq_vit.make_weights())))
