import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm.relax.frontend.onnx import from_onnx

from tests.relay_passes.modules import module, ops
from vitq.relay_passes.expressions import MAIN, bindings_of
from vitq.relay_passes.fold_clip import FoldClip
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.matching import read_quantize

INPUT = {"x": ((2, 3), "float32")}


def clipped(low, high, zero_point=1, clip_codes=True):
    """A quantizer with a Clip on its codes, or in front of it, as the ONNX frontend imports it."""
    dtype = np.int8 if clip_codes else np.float32
    constants = {
        "s": np.float32(0.25),
        "z": np.int8(zero_point),
        "low": np.asarray(low, dtype),
        "high": np.asarray(high, dtype),
    }
    nodes = [("QuantizeLinear", "s", "z"), ("Clip", "low", "high")]
    value, made = "x", []
    for kind, *rest in nodes if clip_codes else nodes[::-1]:
        made.append(helper.make_node(kind, [value, *rest], [f"y{len(made)}"]))
        value = f"y{len(made) - 1}"
    graph = helper.make_graph(
        made,
        "clip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(value, TensorProto.INT8, [2, 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return from_onnx(model)


def test_a_clip_becomes_the_bounds_of_its_quantizer():
    after = FoldClip()(clipped(-8, 7))
    expected = module(INPUT, lambda b, x: b.q(x, 0.25, 1, bounds=(-8, 7)))
    tvm.ir.assert_structural_equal(after[MAIN].body, expected[MAIN].body, map_free_vars=True)
    assert len(after.functions) == 1  # the loops are gone


def test_the_codes_are_those_of_quantize_and_clip():
    x = np.linspace(-5, 5, 6, dtype=np.float32).reshape(2, 3)
    got = interpret(FoldClip()(clipped(-8, 7)), [x])[0]
    np.testing.assert_array_equal(got, np.clip(np.rint(x / 0.25) + 1, -8, 7).astype(np.int8))


def test_bounds_wider_than_the_type_leave_a_plain_quantizer():
    after = FoldClip()(clipped(-128, 127))
    assert ops(after) == ["quantize"]
    found = read_quantize(bindings_of(after[MAIN])[0].value)
    assert (found.qparams.qmin, found.qparams.qmax) == (-128, 127)


def test_a_clip_of_real_numbers_is_a_minimum_and_a_maximum():
    after = FoldClip()(clipped(0, 6, 1, clip_codes=False))
    assert ops(after)[-1] == "quantize" and "call_tir" not in ops(after)
    x = np.linspace(-5, 9, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(interpret(after, [x])[0], np.rint(x.clip(0, 6) / 0.25) + 1)


def test_bounds_without_the_zero_point_are_refused():
    step = FoldClip()
    after = step(clipped(-8, 7, zero_point=9))
    assert "call_tir" in ops(after)
    assert any("zero point" in text for text in step.declines.values())
