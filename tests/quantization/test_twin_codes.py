"""Twin attention weights through the graph: simulation, reference and ONNX mean the same ones."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.quantization.vits import VARIANTS, float_logits, lowest_cosine, pixels, quantized
from vitq.export.parity import compare, onnx_runner
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.numerics.shiftmax import code_params
from vitq.numerics.twin_codes import ONE_RANGE, TWIN_BITS, TwinCodes, twin_choices, twin_weights
from vitq.quantization.graph import artifact
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.mixed.costs import has_fixed_width
from vitq.quantization.plan.attention_codes import (
    codes_name,
    exp_params,
    narrow_codes,
    twin_codes_of,
    use_codes,
)
from vitq.quantization.plan.methods import AttentionForm
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.hessian_search import AttentionQuantizer, search_input
from vitq.quantization.run.fake_quantize import GraphModule, simulate_node, twin_exponents
from vitq.quantization.run.reference import IntegerReference


def exps(graph: Graph) -> list[Node]:
    return [node for node in graph if node.op is OpKind.EXP]


def with_twins(bits: int) -> Graph:
    graph = copy.deepcopy(quantized("class_token", "w8a8", "minmax"))
    use_codes(graph, AttentionForm.TWIN, Recipe(8, bits), zero=True)
    return graph


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_all_stages_agree(bits: int, tmp_path: Path) -> None:
    graph, pictures = with_twins(bits), pixels(8)
    assert exps(graph)
    for node in exps(graph):
        assert twin_codes_of(node) == twin_choices(bits)[-1]
        assert exp_params(node, 0.01) == code_params(0.01, twin_choices(bits)[-1])
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > 0.97
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    assert compare(simulated, integer).mean_cosine > 0.999
    save_onnx(to_onnx(graph, {}), tmp_path / "network.onnx")
    exported = onnx_runner(tmp_path / "network.onnx")(pictures.numpy())
    assert compare(simulated, exported).mean_cosine > 0.9999


@pytest.mark.parametrize("twin", [TwinCodes(0, 2), TwinCodes(2, 5), TwinCodes(6, 7)])
def test_simulated_weights_are_the_integers(twin: TwinCodes) -> None:
    """Each of the 256 weights, and both sides of its boundaries."""
    w = np.arange(256)
    wanted = twin_weights(w, twin)
    for away in (-0.49, 0.0, 0.49):
        x = torch.from_numpy(np.clip((w + away) / 255, 0, 1).astype(np.float32))
        found = twin_exponents(x, twin) * 255
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    node = exps(with_twins(4))[0]
    node.attrs.update(twin_fine=twin.fine, twin_coarse=twin.coarse)
    found = simulate_node(node, torch.from_numpy((w / 255).astype(np.float32))) * 255
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_the_exported_table() -> None:
    """256 weights of steps 16 and 32, and one Gather for each attention."""
    graph = with_twins(4)
    model = to_onnx(graph, {})
    gathers = [node for node in model.graph.node if node.input[0] == "twin_weights.4.5"]
    assert [node.op_type for node in gathers] == ["Gather"] * len(exps(graph))
    table = next(t for t in model.graph.initializer if t.name == "twin_weights.4.5")
    values = onnx.numpy_helper.to_array(table)
    assert values.dtype == np.uint8
    assert values[[7, 8, 120, 127, 143, 144, 255]].tolist() == [0, 16, 112, 112, 128, 160, 255]


def test_stored_and_read_again(tmp_path: Path) -> None:
    graph = with_twins(4)
    artifact.save(tmp_path, artifact.QuantizedModel(graph, pixels(1).numpy(), {}))
    restored = artifact.load(tmp_path).graph
    assert [twin_codes_of(n) for n in exps(restored)] == [TwinCodes(4, 5)] * len(exps(graph))


def test_the_search_weighs_the_error_of_the_product() -> None:
    """The fine step with the smallest weighted error of what the normalized weights give."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(3, 20, 31, generator=generator) * torch.tensor([0.3, 2, 6])[:, None, None]
    x = torch.exp(scores - scores.amax(-1, keepdim=True))
    value = torch.randn(3, 31, 8, generator=generator)
    gradients = torch.rand(3, 20, 8, generator=generator) * torch.tensor([0, 1, 9.0])[:, None, None]
    target = (x / x.sum(-1, keepdim=True)) @ value
    tried = [AttentionQuantizer(twin) for twin in twin_choices(4)]
    found = search_input(x, target, value, gradients, tried)
    errors = []
    for candidate in tried:
        w = twin_weights(np.rint(x.numpy() * 255).astype(np.int64), candidate.twin)
        result = (w / w.sum(-1, keepdims=True)) @ value.numpy()
        errors.append(float(((result - target.numpy()) ** 2 * gradients.numpy()).sum()))
    assert found is tried[int(np.argmin(errors))]
    assert len(set(errors)) == len(tried)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_the_method_searches_each_attention(bits: int) -> None:
    graph = quantized("class_token", f"w8a{bits}", "ptq4vit")
    assert exps(graph)
    for node in exps(graph):
        assert twin_codes_of(node) in twin_choices(bits)
    assert all(
        twin_codes_of(n) == ONE_RANGE for n in exps(quantized("class_token", "w8a8", "ptq4vit"))
    )


def test_names_widths_and_refusals() -> None:
    node = exps(with_twins(6))[0]
    assert codes_name(node) == "twin, steps of 4 and 8"
    assert not has_fixed_width(node)
    for bits in TWIN_BITS:
        narrow = copy.deepcopy(node)
        narrow_codes(narrow, bits)
        assert twin_codes_of(narrow) in twin_choices(bits)
    use = copy.deepcopy(node)
    narrow_codes(use, 4)
    assert twin_codes_of(use).border == twin_codes_of(node).border
    node.attrs["log_steps"] = 1
    with pytest.raises(VitqError, match="logarithmic or have two ranges"):
        twin_codes_of(node)
    del node.attrs["log_steps"], node.attrs["twin_fine"]
    with pytest.raises(VitqError, match="need twin_fine and twin_coarse"):
        twin_codes_of(node)
