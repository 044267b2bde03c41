"""Log codes through the graph: fake quantization, reference and ONNX mean the same weights."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.vits import VARIANTS, float_logits, lowest_cosine, pixels, quantized
from vitq.export.parity import compare, onnx_runner
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.numerics.log_codes import code_table, log_code_params
from vitq.quantization.graph import artifact
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.plan.attention_codes import (
    LogCodes,
    codes_name,
    exp_params,
    log_codes_of,
    use_codes,
)
from vitq.quantization.plan.methods import AttentionForm
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.run.fake_quantize import GraphModule, quantize_exponents
from vitq.quantization.run.reference import IntegerReference

FORMS = [(AttentionForm.LOG2, 4, 1), (AttentionForm.LOG_SQRT2, 4, 2), (AttentionForm.LOG2, 3, 1)]


def exps(graph: Graph) -> list[Node]:
    return [node for node in graph if node.op is OpKind.EXP]


def with_codes(form: AttentionForm, bits: int, zero: bool) -> Graph:
    graph = copy.deepcopy(quantized("class_token", "w8a8", "minmax"))
    use_codes(graph, form, Recipe(8, bits), zero)
    return graph


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("form", "bits", "steps"), FORMS)
def test_all_stages_agree(
    form: AttentionForm, bits: int, steps: int, zero: bool, tmp_path: Path
) -> None:
    graph, pictures = with_codes(form, bits, zero), pixels(8)
    assert exps(graph)
    for node in exps(graph):
        assert log_codes_of(node) == LogCodes(steps, 2**bits, zero)
        assert exp_params(node, 0.01) == log_code_params(0.01, steps, 2**bits, zero)
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > 0.98
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    assert compare(simulated, integer).mean_cosine > 0.999
    save_onnx(to_onnx(graph, {}), tmp_path / "network.onnx")
    exported = onnx_runner(tmp_path / "network.onnx")(pictures.numpy())
    assert compare(simulated, exported).mean_cosine > 0.9999


def test_stored_and_read_again(tmp_path: Path) -> None:
    graph = with_codes(AttentionForm.LOG_SQRT2, 4, True)
    model = artifact.QuantizedModel(graph, pixels(1).numpy(), {})
    artifact.save(tmp_path, model)
    restored = artifact.load(tmp_path).graph
    assert [log_codes_of(n) for n in exps(restored)] == [log_codes_of(n) for n in exps(graph)]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("steps", "levels"), [(1, 16), (2, 16), (4, 8), (8, 256)])
def test_simulated_weights_are_the_integers(steps: int, levels: int, zero: bool) -> None:
    """Every code's own value, both sides of each boundary, and what lies beyond."""
    log = LogCodes(steps, levels, zero)
    table = code_table(log_code_params(1.0, *log))
    k = np.arange(len(table) + 40)
    for away in (-0.49, 0.0, 0.49):
        exact = 2.0 ** (-np.maximum(k + away, 0) / steps)
        found = quantize_exponents(torch.from_numpy(exact.astype(np.float32)), log) * 255
        np.testing.assert_allclose(found.numpy(), table[np.minimum(k, len(table) - 1)], rtol=1e-6)
    assert quantize_exponents(torch.zeros(1), log).item() * 255 == pytest.approx(table[-1])


def test_names_and_refusals() -> None:
    graph = copy.deepcopy(quantized("class_token", "w8a8", "minmax"))
    node = exps(graph)[0]
    assert codes_name(node) == "uniform" and log_codes_of(node) is None
    use_codes(graph, AttentionForm.UNIFORM, Recipe(8, 4), zero=True)
    assert codes_name(node) == "uniform"
    use_codes(graph, AttentionForm.LOG_SQRT2, Recipe(8, 4), zero=True)
    assert codes_name(node) == "log sqrt 2, 16 codes and zero"
    del node.attrs["log_levels"]
    with pytest.raises(VitqError, match="log codes need log_steps and log_levels"):
        log_codes_of(node)
