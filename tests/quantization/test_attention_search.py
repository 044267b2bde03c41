"""The adaptive base: log-sqrt2 as published, and the choice among bases."""

import copy

import numpy as np
import pytest
import torch

from tests.quantization.vits import traced
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.rewrites import defer_softmax_normalization
from vitq.quantization.plan.attention_codes import LogCodes, log_codes_of
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import layer_widths
from vitq.quantization.ranges.attention_search import choose_codes, codes_error
from vitq.quantization.ranges.samples import Sampler
from vitq.quantization.run.fake_quantize import quantize_exponents


def repq_log_sqrt2(p: np.ndarray, bits: int) -> np.ndarray:
    """RepQ-ViT: k = clamp(round(-2 log2 p)); 2**(-k / 2), the odd ones with a factor 1 / sqrt 2."""
    k = np.clip(np.floor(-2 * np.log2(p) + 0.5), 0, 2**bits - 1)
    return 2.0 ** -np.ceil(k / 2) * (np.where(k % 2, np.sqrt(2) - 1, 0) + 1)


@pytest.mark.parametrize("bits", [3, 4])
def test_log_sqrt2_codes_are_the_papers(bits: int) -> None:
    p = np.exp(-np.linspace(0, 12, 500)).astype(np.float32)
    found = quantize_exponents(torch.from_numpy(p), LogCodes(2, 2**bits, False)).numpy()
    np.testing.assert_allclose(found, repq_log_sqrt2(p, bits), atol=0.6 / 255)


def exponential(graph: Graph) -> Node:
    return next(node for node in graph if node.op is OpKind.EXP)


def chosen(scores: torch.Tensor, bits: int) -> LogCodes | None:
    graph = copy.deepcopy(traced("class_token"))
    defer_softmax_normalization(graph)
    node = exponential(graph)
    value = torch.exp(scores - scores.amax(-1, keepdim=True))
    widths = layer_widths(graph, Recipe(8, bits))
    choose_codes(graph, node, value, widths, Sampler(len(scores), {}))
    return log_codes_of(node)


def test_the_base_follows_the_spread_of_the_scores() -> None:
    graph = traced("class_token")
    defer_softmax_normalization(graph)
    shape = (16, *exponential(graph).shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    even, sharp = chosen(0.3 * noise, 4), chosen(6 * noise, 4)
    assert even is not None and sharp is not None
    assert even.steps > sharp.steps
    assert chosen(noise, 8) is None


def test_the_error_is_that_of_normalized_weights() -> None:
    rows = torch.exp(-torch.tensor([[0.0, 0.5, 3.0], [0.0, 0.0, 9.0]]))
    weights = 2.0 ** -np.floor(-np.log2(rows.numpy()) + 0.5)
    weights = np.rint(255 * weights) / 255
    difference = weights / weights.sum(1, keepdims=True)
    difference = difference - rows.numpy() / rows.numpy().sum(1, keepdims=True)
    expected = np.square(difference).sum(1).mean()
    assert codes_error(rows, LogCodes(1, 16, False)) == pytest.approx(expected, rel=1e-4)
