"""Scales behind gates: the function is kept, the channels reach equally far, near misses stay."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.quantization.vits import MEAN, SHAPE, STD, normalized, pixels, toy
from vitq.quantization.explain.alignment import align
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph, rewrite
from vitq.quantization.ranges.gates import LARGEST, RATIO, find_gates, reparameterize_gates
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference

HIDDEN = 12
Body = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def _packed(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    gate, up = self.both(self.norm(x)).chunk(2, -1)
    return x + self.down(functional.silu(gate) * up)


def _apart(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = self.norm(x)
    return x + self.down(self.up(y) * functional.gelu(self.gate(y)))


KEPT: dict[str, Body] = {"packed": _packed, "apart": _apart}
DECLINED: dict[str, Body] = {
    "up is read again": lambda self, x: (
        lambda u: x + self.down(functional.silu(self.gate(x)) * u) + self.down(u)
    )(self.up(x)),
    "no layer behind": lambda self, x: (
        x + (functional.silu(self.gate(x)) * self.up(x)).repeat_interleave(1, -1)[..., :1]
    ),
    "square": lambda self, x: (lambda u: x + self.down(u * u))(self.up(x)),
    "both curved": lambda self, x: (
        x + self.down(functional.silu(self.gate(x)) * functional.gelu(self.up(x)))
    ),
}


def gated(body: Body, spread: bool = True) -> Graph:
    """A toy with such a block; its channels differ by up to 1000."""
    torch.manual_seed(0)
    model = toy(body=body)
    width = model.norm.normalized_shape[0]
    model.both, model.down = nn.Linear(width, 2 * HIDDEN), nn.Linear(HIDDEN, width)
    model.up, model.gate = nn.Linear(width, HIDDEN), nn.Linear(width, HIDDEN)
    with torch.no_grad():
        sizes = 10 ** torch.linspace(-1.5, 1.5, HIDDEN)[:, None] if spread else 1.0
        model.up.weight.mul_(sizes)
        model.both.weight[HIDDEN:].mul_(sizes)
    return trace(model.eval(), SHAPE)


def product(graph: Graph) -> Node:
    return next(node for node in graph if node.op is OpKind.MULTIPLY)


def reach(graph: Graph, x: torch.Tensor) -> np.ndarray:
    found: list[np.ndarray] = []
    name = product(graph).name
    GraphModule(graph, observer=lambda n, v: found.append(v.numpy()) if n.name == name else None)(x)
    return np.abs(found[0]).reshape(-1, HIDDEN).max(0)


@pytest.mark.parametrize("name", KEPT)
def test_the_function_is_kept_and_channels_reach_equally_far(name: str) -> None:
    graph = gated(KEPT[name])
    rewrite(graph, Recipe().nonlinear, MEAN, STD)
    x = pixels(4)
    before, wide = GraphModule(graph)(x).numpy(), reach(graph, x)
    reparameterize_gates(graph, [x])
    after, even = GraphModule(graph)(x).numpy(), reach(graph, x)
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())
    ratio = graph.real(product(graph), RATIO)
    assert 1 / LARGEST == ratio.min() < ratio.max() <= LARGEST
    inside = (ratio > 1 / LARGEST) & (ratio < LARGEST)
    assert inside.sum() > 2
    np.testing.assert_allclose(even[inside], even[inside].mean(), rtol=1e-4)
    assert wide.max() / wide.min() > 5 * even.max() / even.min()


@pytest.mark.parametrize("name", DECLINED)
def test_near_misses_are_left_alone(name: str) -> None:
    graph = gated(DECLINED[name])
    before = copy.deepcopy(graph.tensors)
    assert find_gates(graph) == []
    reparameterize_gates(graph, [])
    assert all(np.array_equal(graph.tensors[key], value) for key, value in before.items())


def quantized(graph: Graph, method: str, x: torch.Tensor) -> Graph:
    return quantize_graph(graph, x, Recipe.parse("w8a4"), get_method(method), MEAN, STD)


def test_four_bits_lose_less_behind_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, x = gated(_packed), pixels(8)
    wanted = GraphModule(exact)(normalized(x)).numpy()
    errors = []
    for is_used in (True, False):
        if not is_used:
            monkeypatch.setattr(
                "vitq.quantization.ranges.calibrate.reparameterize_gates", lambda *_: None
            )
        graph = quantized(gated(_packed), "repq", x)
        assert (RATIO in product(graph).params) is is_used
        reference = IntegerReference(graph)
        errors.append(np.square(reference(x.numpy()) * reference.output_scale - wanted).mean())
    assert errors[0] < 0.8 * errors[1]


def test_explain_compares_at_the_same_scales() -> None:
    graph, x = quantized(gated(_packed), "repq", pixels(4)), pixels(4)
    exact = gated(_packed)
    rewrite(exact, Recipe().nonlinear, MEAN, STD)
    aligned = align(exact, graph)
    wanted = GraphModule(exact)(x).numpy()
    np.testing.assert_allclose(
        GraphModule(aligned)(x).numpy(), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max()
    )
    ratio = graph.real(product(graph), RATIO)
    np.testing.assert_allclose(reach(aligned, x) * ratio, reach(exact, x), rtol=1e-4)
