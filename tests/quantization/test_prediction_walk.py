"""PD-Quant: distribution correction and the choice by prediction difference."""

import numpy as np
import pytest
import torch

from tests.quantization.vits import MEAN, STD, pixels, traced
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.placement import place_quantizers
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import layer_widths
from vitq.quantization.ranges.calibrate import observe
from vitq.quantization.ranges.hessian_search import scaled
from vitq.quantization.ranges.prediction_walk import (
    CORRECTION,
    FACTORS,
    REGULARIZATION,
    PredictionWalk,
    correct_distribution,
)
from vitq.quantization.run.fake_quantize import GraphModule, simulate_node


def test_statistics_move_towards_the_float_models() -> None:
    random = torch.Generator().manual_seed(0)
    reference = torch.randn(50, 3, generator=random) * torch.tensor([1.0, 2.0, 0.0]) + 1
    value = reference * 1.5 - 2
    share = CORRECTION / (1 + CORRECTION)
    found = correct_distribution(value, reference)
    np.testing.assert_allclose(
        found.mean(0), (1 - share) * value.mean(0) + share * reference.mean(0), atol=1e-5
    )
    np.testing.assert_allclose(
        found.std(0), (1 - share) * value.std(0) + share * reference.std(0), atol=1e-5
    )
    np.testing.assert_allclose(correct_distribution(reference, reference), reference, atol=1e-6)


@pytest.mark.parametrize("which", [0, -1])
def test_the_scale_is_the_best_candidate_for_the_prediction(which: int) -> None:
    graph, recipe, pictures = traced("mean"), Recipe(8, 3), pixels(6)
    fold_normalization(graph, MEAN, STD)
    placement = place_quantizers(graph, recipe)
    observe(graph, placement, pictures)
    widths = layer_widths(graph, recipe)
    walk = PredictionWalk(graph, placement, pictures, widths, get_method("pdquant"), {})
    node = [n for n in graph if n.op is OpKind.GELU and n.name in placement.roles][which]
    values = {}
    float_logits = GraphModule(graph, observer=lambda n, v: values.update({n.name: v}))(pictures)
    walk.values = {k: v for k, v in values.items() if k != node.name}
    with torch.inference_mode():
        walk._activation(node, values[node.name])
    chosen = node.out
    assert chosen is not None
    starts = [scaled(chosen, 1 / f) for f in FACTORS]  # the start is one of these

    def loss(qparams: object) -> float:
        node.out = qparams  # type: ignore[assignment]
        rounded = simulate_node(node, values[node.name])
        for other in graph:
            other.out = node.out if other is node else None
        logits = GraphModule(graph, simulate=True)(pictures)
        p, q = (torch.log_softmax(v, -1) for v in (float_logits, logits))
        difference = float((p.exp() * (p - q)).sum(-1).mean())
        error = (rounded - values[node.name]).square().mean() / values[node.name].square().mean()
        return difference + REGULARIZATION * float(error)

    best = loss(chosen)
    assert any(
        best <= min(loss(scaled(start, f)) for f in FACTORS) * (1 + 1e-4) for start in starts
    )
