"""The whole pipeline on a tiny QDQ vision transformer, against plain integers."""

import numpy as np
import pytest
from tvm.relax.frontend.onnx import from_onnx

from tests.relay_passes import qdq_vit
from tests.relay_passes.modules import ops
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize

WEIGHTS = qdq_vit.make_weights()
MODEL = qdq_vit.build(WEIGHTS)


def imported(batch):
    return from_onnx(MODEL, shape_dict={"pixels": (batch, 3, qdq_vit.IMAGE, qdq_vit.IMAGE)})


def pixels(batch, seed=1):
    shape = (batch, 3, qdq_vit.IMAGE, qdq_vit.IMAGE)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_integer_is_the_references(batch, fuse):
    result = integerize(imported(batch), PassOptions(fuse_attention=fuse, fuse_epilogue=fuse))
    for seed in range(5):
        x = pixels(batch, seed)
        got = interpret(result.mod, [x])[0]
        assert got.dtype == np.int16
        np.testing.assert_array_equal(got, qdq_vit.reference(WEIGHTS, x))


def test_the_integers_are_close_to_the_float_graph():
    mod = imported(2)
    result = integerize(mod)
    codes, real = interpret(result.mod, [pixels(2)])[0], interpret(mod, [pixels(2)])[0]
    info = result.report.outputs[0]
    # steps of 8-bit activations travel to the logits: a few hundredths of their range
    error = np.abs(info.scale * (codes.astype(float) - info.zero_point) - real)
    assert error.max() <= 0.05 * np.abs(real).max()


def test_the_fused_network_has_no_layout_but_reshapes():
    calls = ops(integerize(imported(1)).mod)
    assert "permute_dims" not in calls
    assert calls.count("strided_slice") == 1  # the class token
    assert calls.count(names.ATTENTION) == 1
    assert calls.count(names.LINEAR) == 2  # qkv and the head
    assert calls.count(names.LINEAR_GELU) == 1
    assert calls.count(names.LINEAR_ADD) == 2
    assert calls.count(names.SHIFTGELU) == 0
    assert calls.count(names.LAYERNORM) == 3


def test_report():
    report = integerize(imported(1)).report
    (info,) = report.outputs
    assert (info.shape, info.dtype, info.zero_point) == ((1, 10), "int16", 0)
    assert info.scale == float(np.float32(2e-4))
    assert {bound.op for bound in report.bounds} >= {names.LINEAR, names.ATTENTION}
    assert all(-b.limit <= b.low and b.high <= b.limit for b in report.bounds)
    assert report.declines == {}


def test_debug_dump_writes_one_file_for_each_pass(tmp_path):
    report = integerize(imported(1), debug_dump=tmp_path / "dump").report
    files = sorted((tmp_path / "dump").iterdir())
    assert len(files) == len(report.passes) + 1
    assert files[0].name == "00_imported.py"
    assert names.ATTENTION in files[-1].read_text()


def test_a_dynamic_batch_is_an_error():
    with pytest.raises(VitqError, match=r"pixels has the dynamic shape .* fixed batch size"):
        integerize(from_onnx(MODEL))


def test_options_refuse_what_cannot_be_meant():
    with pytest.raises(VitqError, match="both mean and std"):
        PassOptions(mean=(0.5,))
    with pytest.raises(VitqError, match="not positive"):
        PassOptions(mean=(0.5,), std=(0.0,))
    with pytest.raises(VitqError, match="nonlinear is 'other': choose vitq or ivit"):
        PassOptions(nonlinear="other")
    assert PassOptions(nonlinear="ivit").nonlinear is Nonlinear.IVIT
