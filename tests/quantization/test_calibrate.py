"""Post-training quantization as a whole: order of the steps, ranges, and refusals."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import (
    MEAN,
    SHAPE,
    STD,
    VARIANTS,
    Toy,
    float_logits,
    lively,
    lowest_cosine,
    pixels,
    quantize,
    quantized,
    toy,
    traced,
    vit,
)
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.explain.alignment import align
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph, rewrite
from vitq.quantization.ranges.center_keys import KEY_SHIFT
from vitq.quantization.ranges.equalize import FACTOR
from vitq.quantization.ranges.layers import Inputs, Means, round_layer
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference


def closeness(model: nn.Module, graph: Graph) -> float:
    """Smallest cosine of the integer logits with the float model's, on pictures it never saw."""
    pictures, reference = pixels(6, seed=9), IntegerReference(graph)
    logits = reference(pictures.numpy()) * reference.output_scale
    return lowest_cosine(logits, float_logits(model, pictures))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_close_to_float(variant: str) -> None:
    assert closeness(VARIANTS[variant](), quantized(variant)) > 0.98


@pytest.mark.parametrize("method", ["minmax", "percentile", "repq"])
def test_methods_are_close_to_float(method: str) -> None:
    assert closeness(vit(), quantized("class_token", "w8a8", method)) > 0.99


def test_weights_are_rounded_after_the_normalization_is_folded() -> None:
    model = toy()
    graph = quantize(trace(model, SHAPE), method="minmax")
    (conv,) = (node for node in graph if node.op is OpKind.CONV2D)
    folded = model.conv.weight.detach().numpy() / np.reshape(STD, (1, 3, 1, 1))
    step = graph.qparams[conv.params["weight"]].scale.reshape(-1, 1, 1, 1)
    error = np.abs(graph.real(conv, "weight") - folded)
    assert np.all(error <= 0.5001 * step)
    mean = np.reshape(MEAN, (1, 3, 1, 1))
    bias = model.conv.bias.detach().numpy() - (folded * mean).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(graph.real(conv, "bias"), bias, atol=1e-3)


def test_weights_are_rounded_after_layer_scale_is_folded() -> None:
    model = VARIANTS["layer_scale"]()
    graph = quantized("layer_scale", "w8a8", "minmax")
    fc2 = [n for n in graph if n.op is OpKind.LINEAR][-2]
    block = model.blocks[-1]  # type: ignore[index]
    folded = (block.ls2.gamma[:, None] * block.mlp.fc2.weight).detach().numpy()
    step = graph.qparams[fc2.params["weight"]].scale[:, None]
    assert np.all(np.abs(graph.real(fc2, "weight") - folded) <= 0.5001 * step)


def test_weights_are_rounded_after_the_reparameterization() -> None:
    graph = quantized("class_token")
    for node in graph:
        if node.op is OpKind.LINEAR:
            # Rounding with feedback may move the largest weight by some steps.
            assert np.abs(graph.tensor(node, "weight")).max(axis=1).min() >= 120


def test_everything_is_integer_afterwards() -> None:
    graph = quantized("class_token")
    for node in graph:
        if node.op in (OpKind.LINEAR, OpKind.CONV2D):
            assert graph.tensor(node, "weight").dtype == np.int8
            assert graph.tensor(node, "bias").dtype == np.int32
        if node.op is OpKind.CONSTANT:
            assert graph.tensor(node, "value").dtype == np.int16
    floats = {k for k, v in graph.tensors.items() if v.dtype == np.float32}
    norms = {k for n in graph if n.op is OpKind.LAYER_NORM for k in n.params.values()}
    assert floats == norms


def test_residual_ranges_have_headroom() -> None:
    graph = traced("class_token")
    largest: dict[str, float] = {}
    result = quantize(graph)
    module = GraphModule(
        result, observer=lambda n, x: largest.update({n.name: float(x.abs().max())})
    )
    module(pixels(8, seed=1))
    for node in result:
        if node.op is OpKind.ADD and node.out is not None:
            reach = float(node.out.scale) * node.out.qmax
            assert reach == pytest.approx(2 * largest[node.name], rel=0.05)


def test_pixels_are_exact() -> None:
    source = quantized("class_token").input.out
    assert source is not None
    assert (float(source.scale), int(source.zero_point)) == (np.float32(1 / 255), 0)
    assert (source.qmin, source.qmax) == (0, 255)


def test_two_runs_give_the_same_graph() -> None:
    first, second = (quantize(traced("mean")) for _ in range(2))
    assert list(first.nodes) == list(second.nodes)
    for key, value in first.tensors.items():
        np.testing.assert_array_equal(second.tensors[key], value)
    for name, node in first.nodes.items():
        if node.out is not None:
            assert second.nodes[name].out is not None
            assert node.out.scale.tobytes() == second.nodes[name].out.scale.tobytes()  # type: ignore[union-attr]


def test_a_module_called_like_a_node_keeps_its_weights() -> None:
    class Named(nn.Module):
        """torch.export calls the first linear `linear`; here that is another module's name."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 8, 8)
            self.norm = nn.LayerNorm(16)
            self.linear_1 = nn.Linear(16, 16)
            self.linear = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Logits."""
            x = self.conv(x).flatten(2).transpose(1, 2)
            x = x + self.linear_1(self.norm(x))
            return self.linear(self.norm(x)[:, 0])

    model = lively(Named())
    assert closeness(model, quantize(trace(model, SHAPE))) > 0.99


def test_a_branch_that_cancels_the_residual_is_not_clipped() -> None:
    model = toy()
    with torch.no_grad():
        model.conv.bias.fill_(100.0)
        model.fc.bias.fill_(-100.0)
    graph = quantize(trace(model, SHAPE))
    (add,) = (node for node in graph if node.op is OpKind.ADD)
    branch = graph.operand(add, 1)
    assert branch.out is not None and add.out is not None
    assert float(branch.out.scale) > 4 * float(add.out.scale)
    assert closeness(model, graph) > 0.98


def test_a_branch_within_the_sum_s_range_shares_its_scale() -> None:
    graph = quantized("class_token")
    tied = 0
    for node in graph:
        if node.op is OpKind.ADD and graph.operand(node, 1).op is OpKind.LINEAR:
            tied += graph.operand(node, 1).out is node.out
    assert tied == 4


def test_a_position_embedding_of_zeros() -> None:
    model = VARIANTS["class_token"]()
    with torch.no_grad():
        model.pos_embed.zero_()  # type: ignore[operator,union-attr]
        model.cls_token.zero_()  # type: ignore[operator,union-attr]
    assert closeness(model, quantize(trace(model, SHAPE))) > 0.99


def test_a_number_between_quantizer_and_linear() -> None:
    model = toy(body=lambda self, x: x + self.fc(self.norm(x) * 0.25))
    assert closeness(model, quantize(trace(model, SHAPE))) > 0.99


def test_a_bias_beyond_int32_raises_the_weight_s_scale() -> None:
    model = toy()
    with torch.no_grad():
        model.fc.weight[3] *= 1e-9
        model.fc.bias[3] = 50.0
        model.fc.weight[5] = 0.0
    graph = quantize(trace(model, SHAPE))
    fc = next(node for node in graph if node.op is OpKind.LINEAR)
    codes = graph.tensor(fc, "bias").astype(np.int64)
    assert 2**28 < codes[3] <= 2**29 + 64
    assert np.abs(codes).max() < 2**30
    assert graph.real(fc, "bias")[3] == pytest.approx(50.0, rel=1e-3)
    assert not graph.tensor(fc, "weight")[5].any()
    assert closeness(model, graph) > 0.99


def test_no_calibration_pictures_are_refused() -> None:
    with pytest.raises(VitqError, match="no calibration pictures"):
        quantize(trace(toy(), SHAPE), calibration=pixels(0))


def test_weights_that_are_not_finite_are_all_named() -> None:
    model = Toy()
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
        model.last.bias[1] = float("inf")
    with pytest.raises(VitqError, match=r"not finite .* in: fc\.weight, last\.bias"):
        quantize(trace(model, SHAPE))


def test_activations_that_are_not_finite_are_refused() -> None:
    model = toy(body=lambda self, x: self.fc(self.fc(x * 1e30)))
    with pytest.raises(VitqError, match=r"activations of \w+ are not finite"):
        quantize(trace(model, SHAPE))


def test_an_unfoldable_model_is_refused_before_calibration() -> None:
    with pytest.raises(VitqError, match="need 3 values"):
        quantize_graph(
            trace(toy(), SHAPE), pixels(1), Recipe(), get_method("minmax"), (0.5,), (0.5,)
        )


def test_progress_sees_every_batch() -> None:
    calls: list[tuple[str, int, int]] = []

    def progress(items: Iterable[torch.Tensor], title: str, total: int) -> Iterable[torch.Tensor]:
        batches = list(items)
        calls.append((title, total, sum(len(batch) for batch in batches)))
        return batches

    quantize_graph(
        trace(toy(), SHAPE), pixels(19), Recipe(), get_method("minmax"), MEAN, STD, progress
    )
    assert calls == [("calibrate", 3, 19)]


def test_one_picture_is_enough() -> None:
    assert closeness(vit(), quantize(traced("class_token"), calibration=pixels(1))) > 0.9


def test_parts_of_a_concatenation_share_its_scale() -> None:
    graph = quantized("registers")
    (concat,) = (node for node in graph if node.op is OpKind.CONCAT)
    for index in range(len(concat.inputs)):
        source = graph.operand(concat, index)
        while source.out is None:
            source = graph.operand(source)
        assert source.out is concat.out


@pytest.mark.parametrize("excess", [1.0, 1e12])
def test_a_corrected_bias_that_leaves_int32_is_not_corrected(excess: float) -> None:
    """What was calibrated on would have to saturate without measure; int32 must not wrap around."""
    graph = quantize(trace(toy(), SHAPE))
    (fc, *_) = (n for n in graph if n.op is OpKind.LINEAR)
    weight, bias = (graph.real(fc, role).copy() for role in ("weight", "bias"))
    means = Means(np.zeros(weight.shape[1]), np.full(len(weight), excess))
    rows = torch.randn(64, weight.shape[1], generator=torch.Generator().manual_seed(0))
    for role, value in (("weight", weight), ("bias", bias)):
        graph.set_param(fc, role, value)
        graph.qparams.pop(fc.params[role], None)
    weights = torch.full((64,), 1 / 64, dtype=torch.float64)
    round_layer(graph, fc, 8, get_method("repq"), Inputs(rows, weights, means))
    wanted = bias if excess > 1 else np.ones(len(bias))
    np.testing.assert_allclose(graph.real(fc, "bias"), wanted, atol=1e-3)


@pytest.mark.parametrize("name", ["logits", "features"])
def test_features_have_equalized_values(name: str) -> None:
    graph = traced("class_token")
    graph.outputs = {name: graph.output}
    found = quantize_graph(graph, pixels(4), Recipe(), get_method("repq"), MEAN, STD)
    for role in (FACTOR, KEY_SHIFT):
        assert any(role in node.params for node in found) is (name == "features")
    exact = traced("class_token")
    rewrite(exact, Nonlinear.VITQ, MEAN, STD)
    exact.outputs = dict(found.outputs)
    aligned = align(exact, found)
    wanted, moved = (GraphModule(graph)(pixels(2)) for graph in (exact, aligned))
    torch.testing.assert_close(moved, wanted, rtol=0, atol=2e-5)
    assert get_method("minmax").of_results(are_features=True) is get_method("minmax")
