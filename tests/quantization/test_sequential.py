"""Every method on every structure: integers agree with the simulation, and calibration pays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.quantization.vits import (
    MEAN,
    SHAPE,
    STD,
    VARIANTS,
    float_logits,
    lowest_cosine,
    pixels,
    quantize,
    quantized,
    traced,
    vit,
)
from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import METHODS, get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.ranges.sequential import Walk
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference

SEARCHED = ["repq", "ptq4vit", "pdquant", "best"]


@pytest.mark.parametrize("method", SEARCHED)
@pytest.mark.parametrize("variant", ["class_token", "distilled", "mean", "registers"])
def test_integers_agree_with_the_simulation(variant: str, method: str) -> None:
    graph, pictures = quantized(variant, "w8a8", method), pixels(6, seed=5)
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    assert lowest_cosine(integer, simulated) > 0.998
    assert lowest_cosine(integer, float_logits(VARIANTS[variant](), pictures)) > 0.98


@pytest.mark.parametrize("variant", ["class_token", "normalized_query_and_key", "layer_scale"])
@pytest.mark.parametrize("method", SEARCHED)
def test_four_bits_run_in_integers(variant: str, method: str) -> None:
    graph, pictures = quantized(variant, "w4a4", method), pixels(6, seed=5)
    assert all(node.out is None or node.out.qmax < 2**15 for node in graph)
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS[variant](), pictures)) > 0.8


@pytest.mark.parametrize("method", SEARCHED)
def test_published_nonlinear_forms_keep_one_range(method: str) -> None:
    graph = quantize(traced("class_token"), Recipe(4, 6, nonlinear="ivit"), method)
    assert not any("twin_shift" in node.attrs or "log_steps" in node.attrs for node in graph)
    pictures, reference = pixels(4, seed=9), IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > 0.95


def output_means(graph: Graph, pictures: torch.Tensor, simulate: bool) -> dict[str, FloatArray]:
    """(O,) mean output of each linear layer, before its quantizer."""
    found: dict[str, FloatArray] = {}

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.op is OpKind.LINEAR:
            found[node.name] = value.flatten(0, -2).double().mean(0).numpy()

    GraphModule(graph, simulate=simulate, observer=watch)(pictures)
    return found


def test_biases_make_up_for_all_errors_before_them() -> None:
    """Mean outputs are the float network's, but for the rounding of the bias's codes."""
    pictures = pixels(8, seed=1)
    exact = traced("mean")
    fold_normalization(exact, MEAN, STD)
    wanted = output_means(exact, pictures, simulate=False)
    for corrected in (True, False):
        method = replace(get_method("repq"), correct_bias=corrected)
        graph = quantize_graph(traced("mean"), pictures, Recipe(4, 4), method, MEAN, STD)
        found = output_means(graph, pictures, simulate=True)
        assert found.keys() == wanted.keys() and len(found) == 9
        for name, mean in found.items():
            step = graph.qparams[graph.nodes[name].params["bias"]].scale
            within = np.abs(mean - wanted[name]) <= 0.5 * step + 1e-4  # float32 arithmetic
            assert within.all() == corrected


@pytest.mark.parametrize("method", ["repq", "best"])
def test_memory_does_not_grow_with_depth(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a walk holds, quantized and float: of a few nodes, however many blocks there are."""
    held: list[int] = []
    visit = Walk._visit

    def watch(walk: Walk, node: Node) -> torch.Tensor:
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
            for values in (walk.values, walk.exact)
            for value in values.values()
        }
        held.append(sum(storages.values()))
        return visit(walk, node)

    monkeypatch.setattr(Walk, "_visit", watch)
    peaks = []
    for depth in (2, 6):
        held.clear()
        quantize(trace(vit(depth=depth), SHAPE), "w4a4", method)
        peaks.append(max(held))
    assert peaks[0] == peaks[1]
    tokens = 8 * 17 * 24 * 4  # bytes of the residual stream; an MLP's inner values are twice that
    assert 4 * tokens < peaks[0] < 24 * tokens


def test_the_methods_that_search_are_tested_here() -> None:
    assert set(METHODS) - {"minmax", "percentile"} == set(SEARCHED)
