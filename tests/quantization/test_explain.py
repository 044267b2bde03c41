"""The float model in the quantized one's terms, both side by side, and roundings taken out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vitq.models.digits_vit import MEAN, STD
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.explain.alignment import align
from vitq.quantization.explain.removal import (
    Kind,
    Part,
    measure_costs,
    noise,
    parts_of,
    swap,
    without_kind,
)
from vitq.quantization.explain.walk import Walk, reach_of
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.widths import ACTIVATION, WEIGHT
from vitq.quantization.ranges.calibrate import rewrite
from vitq.quantization.ranges.equalize import FACTOR
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference

FEW = 4


@pytest.fixture(scope="module")
def exact(digits_model: torch.nn.Module) -> Callable[..., Graph]:
    """The rewritten float graph."""

    def make(nonlinear: Nonlinear = Nonlinear.VITQ) -> Graph:
        graph = trace(digits_model, (3, 32, 32))
        rewrite(graph, nonlinear, MEAN, STD)
        return graph

    return make


def logits(graph: Graph, pixels: UInt8Array, simulate: bool = False) -> FloatArray:
    found: FloatArray = GraphModule(graph, simulate)(torch.from_numpy(pixels)).numpy()
    return found


@pytest.mark.parametrize("method", ["repq", "best", "minmax"])
def test_the_aligned_model_is_the_float_model(
    method: str,
    quantize_digits: Callable[..., Graph],
    exact: Callable[..., Graph],
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
) -> None:
    """Its function is unchanged, and its values stand at the integers' scales."""
    quantized, floats = quantize_digits("w6a6", method), exact()
    aligned = align(floats, quantized)
    assert [n.name for n in aligned] == [n.name for n in quantized]
    difference = logits(aligned, digits_pixels) - digits_logits
    assert np.abs(difference).max() < 2e-5
    moved = any(
        not np.array_equal(
            aligned.real(node, "gamma"), floats.real(floats.nodes[node.name], "gamma")
        )
        for node in aligned
        if node.op is OpKind.LAYER_NORM
    )
    assert moved is (method != "minmax")
    assert any(FACTOR in node.params for node in quantized) is (method == "best")
    walk = Walk(aligned, quantized)
    walk.run(digits_pixels[:FEW])
    assert min(sums.own_sqnr_db for sums in walk.sums.values()) > 15
    assert min(sums.sqnr_db for sums in walk.sums.values()) > 10


def test_another_models_graph_is_refused(digits_graph: Graph, exact: Callable[..., Graph]) -> None:
    other = exact()
    del other.nodes["linear_4"]
    with pytest.raises(VitqError, match=r"the float model has no linear_4: .* quantize again"):
        align(other, digits_graph)


def test_sums_are_those_of_whole_runs(
    digits_graph: Graph, exact: Callable[..., Graph], digits_pixels: UInt8Array
) -> None:
    aligned = align(exact(), digits_graph)
    walk = Walk(aligned, digits_graph)
    pairs = [walk.run(digits_pixels[i : i + 2]) for i in (0, 2)]
    reference = IntegerReference(digits_graph)
    codes = reference(digits_pixels[:FEW])
    floats, integers = (np.concatenate(part) for part in zip(*pairs, strict=True))
    np.testing.assert_allclose(integers, codes * reference.output_scale, rtol=1e-6)
    seen: dict[str, Any] = {}
    GraphModule(aligned, observer=lambda node, value: seen.update({node.name: value.numpy()}))(
        torch.from_numpy(digits_pixels[:FEW])
    )
    np.testing.assert_allclose(floats, seen[digits_graph.output], atol=1e-5)
    for name, sums in walk.sums.items():
        value = seen[name].astype(np.float64)
        batches = 2 if digits_graph.nodes[name].batch_axis is None else 1
        np.testing.assert_allclose(sums.exact, batches * np.square(value).sum(), rtol=1e-4)
        np.testing.assert_allclose((sums.low, sums.high), (value.min(), value.max()), atol=1e-4)
    last = walk.sums[digits_graph.output]
    error = np.square((integers - floats).astype(np.float64)).sum()
    np.testing.assert_allclose(last.error, error, rtol=1e-3)


def test_own_errors_do_not_hold_what_came_before(
    digits_graph: Graph, exact: Callable[..., Graph], digits_pixels: UInt8Array
) -> None:
    """A spoilt range is the own error of its node, and of no other."""
    aligned = align(exact(), digits_graph)
    before = Walk(aligned, digits_graph)
    before.run(digits_pixels[:FEW])
    spoilt = swap(digits_graph, aligned, [], digits_graph)
    node = next(n for n in spoilt if n.name == "gelu_1")
    narrow = spoilt.nodes["gelu_1"] = type(node)(**vars(node))
    assert node.out is not None
    narrow.out = type(node.out).per_tensor(
        float(node.out.scale) / 8, int(node.out.zero_point), node.out.qmin, node.out.qmax
    )
    after = Walk(aligned, spoilt)
    after.run(digits_pixels[:FEW])
    assert after.sums["gelu_1"].own_sqnr_db < 10 < before.sums["gelu_1"].own_sqnr_db
    assert after.sums["gelu_1"].clipped_share > 0.01
    assert after.sums["gelu_1"].lost > 0.9 * after.sums["gelu_1"].own
    for name in before.sums:
        if name != "gelu_1":
            change = after.sums[name].own_sqnr_db - before.sums[name].own_sqnr_db
            assert name == "linear_7" or abs(change) < 0.5, name
    reach = reach_of(narrow)
    assert reach is not None and reach[1] < after.sums["gelu_1"].high
    assert after.sums["linear_7"].sqnr_db < before.sums["linear_7"].sqnr_db - 10


def test_a_rounding_is_dear_where_it_is_coarse(
    quantize_digits: Callable[..., Graph],
    exact: Callable[..., Graph],
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
) -> None:
    """One layer of 2 bits among 8: its part has nearly all of the error, taken out and alone."""
    coarse = quantize_digits("w2a8", "minmax")
    fine = quantize_digits("w8a8", "minmax")
    guilty = Part("linear_6", WEIGHT)
    mixed = swap(fine, coarse, [guilty], fine)
    aligned = align(exact(), mixed)
    pixels, floats = digits_pixels[:8], digits_logits[:8]
    assert {guilty, Part("linear_6", ACTIVATION), Part("conv2d", WEIGHT)} <= set(parts_of(mixed))
    assert Part("conv2d", ACTIVATION) not in parts_of(mixed)  # pixels
    parts = [guilty, Part("linear_4", WEIGHT), Part("linear_6", ACTIVATION)]
    costs = {
        c.part: c
        for c in measure_costs(aligned, mixed, floats, pixels, parts, lambda items, _, __: items)
    }
    assert costs[guilty].bits == 2 and costs[guilty].gone > 0.8
    assert all(c.gone < 0.2 and c.bits == 8 for p, c in costs.items() if p != guilty)
    assert max(costs.values(), key=lambda c: c.alone).part == guilty
    whole = noise(floats, logits(mixed, pixels, simulate=True))
    np.testing.assert_allclose(np.log10(whole), np.log10(costs[guilty].alone), atol=0.2)
    left = {k: noise(floats, logits(without_kind(aligned, mixed, k), pixels, True)) for k in Kind}
    assert left[Kind.WEIGHTS] < 0.2 * whole < left[Kind.ACTIVATIONS]
    nothing = swap(mixed, aligned, [], mixed)
    for kind in Kind:
        nothing = without_kind(aligned, nothing, kind)
    np.testing.assert_allclose(logits(nothing, pixels, True), floats, atol=1e-4)
