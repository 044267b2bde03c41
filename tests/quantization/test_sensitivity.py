"""Measured sensitivity, costs, and what a change of one layer is."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.qparams import dequantize, quantize
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.mixed.costs import product_costs
from vitq.quantization.mixed.sensitivity import (
    Case,
    Sensitivity,
    _narrow_input,
    _observe_inputs,
    measure_sensitivity,
    sensitivity_cases,
)
from vitq.quantization.plan.methods import WeightRounding, get_method
from vitq.quantization.plan.widths import ACTIVATION, WEIGHT
from vitq.quantization.ranges.layers import input_scale
from vitq.quantization.ranges.observers import weight_qparams
from vitq.quantization.run.fake_quantize import GraphModule

WIDTHS = (2, 6)
NEAREST, FEEDBACK = get_method("minmax"), get_method("repq")


def silent(items, title, total):  # type: ignore[no-untyped-def]
    return items


@pytest.fixture(scope="module")
def measured(
    digits_graph: Graph, digits_pixels: UInt8Array, digits_logits: FloatArray
) -> list[Sensitivity]:
    cases = sensitivity_cases(digits_graph, WIDTHS)
    found = measure_sensitivity(
        digits_graph, digits_logits[:8], digits_pixels[:8], cases, NEAREST, silent
    )
    return list(found)


def find(measured: list[Sensitivity], layer: str, part: str, bits: int) -> Sensitivity:
    (found,) = [e for e in measured if (e.layer, e.part, e.bits) == (layer, part, bits)]
    return found


def test_every_product_is_measured_at_every_width(
    digits_graph: Graph, measured: list[Sensitivity]
) -> None:
    """17 weights; inputs of 16 linear layers (not of the pixels) and of 4 x 2 products."""
    weights = {e.layer for e in measured if e.part == WEIGHT}
    inputs = {e.layer for e in measured if e.part == ACTIVATION}
    layers = {n.name for n in digits_graph if n.op in (OpKind.CONV2D, OpKind.LINEAR)}
    assert weights == layers and len(weights) == 18
    assert len(inputs) == 17 + 8 and "conv2d" not in inputs
    assert len(measured) == 1 + len(WIDTHS) * (18 + 25)


def test_fewer_bits_are_noisier(measured: list[Sensitivity]) -> None:
    base = measured[0]
    assert (base.layer, base.bits) == ("", 8) and base.sqnr_db > 30
    for entry in (e for e in measured if e.bits == 2):
        assert entry.noise > find(measured, entry.layer, entry.part, 6).noise


def test_weight_entry_is_the_graph_with_that_layer_rounded(
    digits_graph: Graph,
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
    measured: list[Sensitivity],
) -> None:
    node = next(n for n in digits_graph if n.op is OpKind.LINEAR)
    module = GraphModule(digits_graph, simulate=True)
    weight = digits_graph.real(node, "weight")
    qparams = weight_qparams(weight, 2)
    narrow = dequantize(quantize(weight, qparams), qparams)
    module._params[node.name, "weight"] = torch.from_numpy(narrow)
    step = input_scale(digits_graph, node) * qparams.scale.astype(np.float64)
    bias = np.rint(digits_graph.real(node, "bias") / step) * step  # in steps of the accumulator
    module._params[node.name, "bias"] = torch.from_numpy(bias.astype(np.float32))
    logits = module(torch.from_numpy(digits_pixels[:8])).numpy().astype(np.float64)
    exact = digits_logits[:8].astype(np.float64)
    entry = find(measured, node.name, WEIGHT, 2)
    assert entry.noise == pytest.approx(((logits - exact) ** 2).sum() / (exact**2).sum(), rel=1e-4)
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (exact, logits))
    assert entry.kl == pytest.approx((p * np.log(p / q)).sum() / 8, rel=1e-3, abs=1e-6)


def test_any_case_alone_gives_what_it_gives_among_others(
    digits_graph: Graph,
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
    measured: list[Sensitivity],
) -> None:
    """The values before a case are computed once for all: which others there are is the same."""
    cases = [Case("scaled_dot_product_attention_2", ACTIVATION, 6), Case("linear_9", WEIGHT, 2)]
    found = measure_sensitivity(
        digits_graph, digits_logits[:8], digits_pixels[:8], cases, NEAREST, silent
    )
    assert {Case(e.layer, e.part, e.bits): e for e in found} == {
        case: find(measured, *case) for case in cases
    }


def test_weights_are_rounded_as_the_method_does_it(
    digits_graph: Graph,
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
    measured: list[Sensitivity],
) -> None:
    """With feedback the noise is less; where few rows are read, rounding does not look at them."""
    many, few = Case("linear_4", WEIGHT, 2), Case("linear_16", WEIGHT, 2)
    pixels, logits = digits_pixels[:8], digits_logits[:8]
    found = list(measure_sensitivity(digits_graph, logits, pixels, [many, few], FEEDBACK, silent))
    assert found[0].noise < 0.7 * find(measured, *many).noise
    clipped = replace(FEEDBACK, rounding=WeightRounding.CLIPPED)
    (same,) = measure_sensitivity(digits_graph, logits, pixels, [few], clipped, silent)
    assert found[1] == same


def test_input_entry_is_the_graph_with_those_quantizers_narrow(
    digits_graph: Graph,
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
    measured: list[Sensitivity],
) -> None:
    """Computed from the pixels on, all nodes; scores read two inputs."""
    layer, exact = "scaled_dot_product_attention_2.scores", digits_logits[:8].astype(np.float64)
    seen = _observe_inputs(digits_graph, digits_pixels[:8])
    narrow = _narrow_input(digits_graph, digits_graph.nodes[layer], 2, seen)
    assert sum(narrow.nodes[n.name].out is not n.out for n in digits_graph) == 2
    logits = GraphModule(narrow, simulate=True)(torch.from_numpy(digits_pixels[:8])).numpy()
    noise = np.square(logits.astype(np.float64) - exact).sum() / np.square(exact).sum()
    assert find(measured, layer, ACTIVATION, 2).noise == noise


def test_nothing_is_edited(
    digits_graph: Graph, digits_pixels: UInt8Array, digits_logits: FloatArray
) -> None:
    before = {key: value.copy() for key, value in digits_graph.tensors.items()}
    outs = {node.name: node.out for node in digits_graph}
    cases = sensitivity_cases(digits_graph, (2,))
    found = measure_sensitivity(
        digits_graph, digits_logits[:1], digits_pixels[:1], cases, NEAREST, silent
    )
    assert len(list(found)) == len(cases)
    assert outs == {node.name: node.out for node in digits_graph}
    assert before.keys() == digits_graph.tensors.keys()
    assert all(np.array_equal(before[key], digits_graph.tensors[key]) for key in before)


def test_costs_of_the_embedded_model(quantize_digits: Callable[..., Graph]) -> None:
    """4 blocks, 65 tokens, width 64, MLP 128; the last block's MLP reads the class token alone."""
    graph = quantize_digits(method="minmax")
    costs = {c.layer: c for c in product_costs(graph)}
    patch, qkv = costs["conv2d"], costs["linear"]
    assert (patch.macs, patch.weights) == (64 * 64 * 48, 64 * 48)
    assert (qkv.macs, qkv.weights) == (65 * 64 * 192, 64 * 192)
    scores = costs["scaled_dot_product_attention.scores"]
    values = costs["scaled_dot_product_attention"]
    assert (scores.macs, values.macs) == (4 * 65 * 65 * 16,) * 2 and scores.weights == 0
    assert qkv.size_bytes(3) == 64 * 192 * 3 // 8
    assert qkv.bit_operations(4, 6) == qkv.macs * 24
    assert patch.bit_operations(4, 6) == patch.macs * 4 * 8  # pixels
    assert scores.bit_operations(4, 6) == scores.macs * 36
    assert values.bit_operations(4, 6) == values.macs * 8 * 6  # attention weights
    for node in graph:
        if node.op is OpKind.EXP:
            node.attrs.update(log_steps=2, log_levels=16, log_zero=True)
    logarithmic = {c.layer: c for c in product_costs(graph)}["scaled_dot_product_attention"]
    assert logarithmic.bit_operations(4, 6) == values.macs * 36  # as wide as activations
    head = costs["linear_16"]
    assert (head.macs, head.weights) == (640, 640)
    weights = sum(c.weights for c in costs.values())
    assert weights == 64 * 48 + 4 * (64 * 192 + 64 * 64 + 2 * 64 * 128) + 640
