"""Attention with biases, masks, windows and other sources: from PyTorch to integer operators."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tvm.relax.frontend.onnx import from_onnx

from tests.quantization.attentions import (
    COUNT,
    HEADS,
    KINDS,
    WINDOW,
    Attention,
    Infinite,
    Padded,
)
from tests.quantization.vits import SHAPE, float_logits, lowest_cosine, normalized, pixels, quantize
from tests.relay_passes.modules import ops
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.offset import MASKED
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.offsets import fold_offsets, is_masked
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize

OFFSETS = {
    "bias": 1,
    "causal": 1,
    "windows": 2,
    "infinite": 2,
    "repeated": 1,
    "pooled": 1,
    "shifted": 2,
}

FUSED = ("bias", "causal", "windows", "infinite", "repeated", "shifted")


def traced(kind: str) -> Graph:
    return trace(KINDS[kind](), SHAPE)


def offsets(graph: Graph) -> list[tuple[int, ...]]:
    return [graph.tensor(node, "value").shape for node in graph if node.op is OpKind.OFFSET]


@pytest.mark.parametrize("kind", KINDS)
def test_the_float_function_stays_the_same(kind: str) -> None:
    graph = traced(kind)
    fold_offsets(graph)
    assert len(offsets(graph)) == OFFSETS.get(kind, 0)
    graph.check_finite()
    for batch in (1, 3):
        x = pixels(batch, 4)
        expected = float_logits(KINDS[kind](), x)
        np.testing.assert_allclose(GraphModule(graph)(normalized(x)), expected, rtol=0, atol=1e-5)


def test_a_mask_that_is_repeated_for_each_picture_is_stored_once() -> None:
    graph = traced("repeated")
    fold_offsets(graph)
    assert offsets(graph) == [(1, COUNT, HEADS, WINDOW, WINDOW)]


def test_scores_with_another_reader_stay_activations() -> None:
    class Twice(Attention):
        def attend(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.split(x)
            scores = q @ k.transpose(-2, -1) + self.bias
            return self.merge(scores.softmax(-1) @ v + scores @ v)

    graph = trace(Twice(), SHAPE)
    fold_offsets(graph)
    assert offsets(graph) == []


def test_nan_is_refused_and_named() -> None:
    model = Attention()
    with torch.no_grad():
        model.bias[0, 0, 0] = torch.nan
    with pytest.raises(VitqError, match=r"holds NaN or \+Inf"):
        quantize(trace(model, SHAPE))


@pytest.mark.parametrize("hidden", [-torch.inf, torch.finfo(torch.float32).min, -1e4])
def test_a_query_that_sees_nothing_is_refused_and_named(hidden: float) -> None:
    model = Attention()
    with torch.no_grad():
        model.bias[0, 3] = hidden
    with pytest.raises(VitqError, match=r"hides every key from a query.*let each query see one"):
        quantize(trace(model, SHAPE))
    with torch.no_grad():
        model.bias[0, 3, 2] = 0.0
    quantize(trace(model, SHAPE))


@pytest.mark.parametrize("nonlinear", list(Nonlinear))
@pytest.mark.parametrize("kind", KINDS)
def test_every_integer_is_the_references(kind: str, nonlinear: Nonlinear) -> None:
    graph = quantize(traced(kind), replace(Recipe.parse("w8a8"), nonlinear=nonlinear))
    x, reference = pixels(3, 5), IntegerReference(graph)
    wanted = reference(x.numpy())
    real = wanted * reference.output_scale
    assert lowest_cosine(real, float_logits(KINDS[kind](), x)) > 0.98
    for batch in (1, 2):
        mod = from_onnx(to_onnx(graph, {}), shape_dict={"pixels": [batch, *SHAPE]})
        integer = integerize(mod, PassOptions(nonlinear=nonlinear)).mod
        fused = nonlinear is Nonlinear.VITQ and kind in FUSED
        assert ops(integer).count(names.OFFSET_ATTENTION) == fused
        assert ops(integer).count(names.OFFSET) == (0 if fused else OFFSETS.get(kind, 0))
        found = interpret(integer, [x.numpy()[:batch]])[0]
        np.testing.assert_array_equal(found, wanted[:batch])


@pytest.mark.parametrize("method", ["repq", "best"])
def test_what_is_masked_weighs_nothing_in_any_code(method: str) -> None:
    """Log codes of few bits, whose last one weighs something, get a zero beyond it."""
    graph = quantize(trace(Infinite(), SHAPE), "w4a4", method)
    node = next(node for node in graph if node.op is OpKind.EXP)
    assert is_masked(graph, node)
    if "log_steps" in node.attrs:
        assert node.attrs["log_zero"]
        log = node.attrs["log_steps"], node.attrs["log_levels"], True
        assert log_code_params(1.0, *log).zero_last
    shown = traced("bias")
    assert not any(is_masked(shown, node) for node in shown if node.op is OpKind.SOFTMAX)
    hidden = (Infinite().mask < 0)[:, None].expand(COUNT, HEADS, WINDOW, WINDOW).numpy()
    weights: list[np.ndarray] = []
    reference = IntegerReference(graph)
    execute = reference.execute

    def watch(node, inputs, batch):  # type: ignore[no-untyped-def]
        result = execute(node, inputs, batch)
        if node.op is OpKind.EXP:
            weights.append(result.codes)
        return result

    reference.execute = watch  # type: ignore[method-assign]
    reference(pixels(1, 6).numpy())
    assert not weights[0][hidden].any()
    assert weights[0][~hidden].any()


def test_shifted_windows_leave_no_layout_kernel() -> None:
    """Both layers read through tables: qkv the picture's rows, the projection the windows'."""
    graph = quantize(traced("shifted"))
    mod = from_onnx(to_onnx(graph, {}), shape_dict={"pixels": [2, *SHAPE]})
    found = [name for name in ops(integerize(mod).mod) if name != "reshape"]
    attention = found.index(names.OFFSET_ATTENTION)
    around = found[attention - 1 : attention + 2]
    assert around == [names.GATHER_LINEAR, names.OFFSET_ATTENTION, names.GATHER_LINEAR_ADD]
    assert not {"take", "permute_dims", names.GATHER_ROWS} & set(found)


def test_padded_windows_through_a_file(tmp_path: Path) -> None:
    """A pad's zeros are the zero point; its rows are gathered, the crop's are read by a layer."""
    graph = quantize(trace(Padded(), SHAPE))
    x, reference = pixels(2, 5), IntegerReference(graph)
    wanted = reference(x.numpy())
    real = wanted * reference.output_scale
    assert lowest_cosine(real, float_logits(Padded(), x)) > 0.98
    save_onnx(to_onnx(graph, {"nonlinear": "vitq"}), tmp_path / "padded.onnx")
    mod = import_model(tmp_path / "padded.onnx", Meaning(2)).integer.mod
    found = ops(mod)
    assert found.count(names.GATHER_ROWS) == 1 and names.ATTENTION in found
    assert not {"pad", "take", "permute_dims"} & set(found)
    np.testing.assert_array_equal(interpret(mod, [x.numpy()])[0], wanted)


def test_masks_of_any_spelling_are_one_number() -> None:
    values = []
    for hidden in (-torch.inf, torch.finfo(torch.float32).min, -1e9):
        kind = type("Kind", (Infinite,), {"hidden": hidden})
        graph = trace(kind(), SHAPE)
        fold_offsets(graph)
        found = [node for node in graph if node.op is OpKind.OFFSET][-1]
        values.append(graph.tensor(found, "value"))
    assert values[0].min() == MASKED
    for value in values:
        np.testing.assert_array_equal(value, values[0])
