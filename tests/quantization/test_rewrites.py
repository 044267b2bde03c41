"""Rewrites before calibration: the same float function, and near misses that stay."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.quantization.vits import (
    MEAN,
    SHAPE,
    STD,
    VARIANTS,
    float_logits,
    normalized,
    pixels,
    toy,
    traced,
)
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.graph.rewrites import (
    defer_softmax_normalization,
    fold_channel_scales,
    select_tokens_early,
)
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.fake_quantize import GraphModule


def run(graph: Graph, x: torch.Tensor) -> np.ndarray:
    """Float logits."""
    logits: np.ndarray = GraphModule(graph)(x).numpy()
    return logits


def count(graph: Graph, op: OpKind) -> int:
    """Nodes of one kind."""
    return sum(node.op is op for node in graph)


def assert_kept(graph: Graph, rewrite: Callable[[Graph], None], tolerance: float = 1e-5) -> None:
    """A rewrite keeps the float function at batch 1 and 3."""
    inputs = [normalized(pixels(batch, seed=3)) for batch in (1, 3)]
    before = [run(graph, x) for x in inputs]
    rewrite(graph)
    for x, expected in zip(inputs, before, strict=True):
        np.testing.assert_allclose(run(graph, x), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_rewrites_together_keep_the_function(variant: str) -> None:
    graph, pictures = traced(variant), pixels(4, seed=2)
    fold_normalization(graph, MEAN, STD)
    fold_channel_scales(graph)
    select_tokens_early(graph)
    defer_softmax_normalization(graph)
    expected = float_logits(VARIANTS[variant](), pictures)
    np.testing.assert_allclose(run(graph, pictures), expected, rtol=0, atol=1e-4)


def test_fold_normalization_equals_the_formula() -> None:
    graph = trace(toy(), SHAPE)
    conv = next(node for node in graph if node.op is OpKind.CONV2D)
    weight, bias = graph.real(conv, "weight"), graph.real(conv, "bias")
    fold_normalization(graph, MEAN, STD)
    for o in range(16):
        shift = sum(float(weight[o, c].sum()) * MEAN[c] / STD[c] for c in range(3))
        for c in range(3):
            np.testing.assert_allclose(
                graph.real(conv, "weight")[o, c], weight[o, c] / STD[c], rtol=1e-6
            )
        np.testing.assert_allclose(graph.real(conv, "bias")[o], bias[o] - shift, atol=1e-5)


def test_fold_normalization_needs_one_value_for_each_channel() -> None:
    with pytest.raises(VitqError, match="need 3 values"):
        fold_normalization(trace(toy(), SHAPE), (0.5,), (0.5,))


@pytest.mark.parametrize("std", [(0.5, 0.0, 0.5), (0.5, -1.0, 0.5), (0.5, float("nan"), 0.5)])
def test_fold_normalization_refuses_what_is_no_scale(std: tuple[float, ...]) -> None:
    with pytest.raises(VitqError, match="std positive"):
        fold_normalization(trace(toy(), SHAPE), MEAN, std)


def test_fold_normalization_refuses_other_readers() -> None:
    model = toy(tokens=lambda self, x: (self.conv(x) + self.conv(x.relu())).flatten(2).mT)
    with pytest.raises(VitqError, match=r"one patch convolution, or .*, not into: pointwise"):
        fold_normalization(trace(model, SHAPE), MEAN, STD)


@pytest.mark.parametrize("moved", [False, True])
def test_fold_normalization_refuses_the_picture_as_a_result(moved: bool) -> None:
    """Beside a result that is one, too: its scale would be that of pixels, not of the input."""

    def forward(self: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(self.tokens(x)), "seen": x.flatten(2) if moved else x}

    with pytest.raises(VitqError, match=r"result seen is the picture itself, .* return other tens"):
        fold_normalization(trace(toy(forward=forward), SHAPE), MEAN, STD)


def test_fold_normalization_refuses_mixed_channels() -> None:
    model = toy(tokens=lambda self, x: self.fc(x.reshape(-1, 3, 64, 16).mT.reshape(-1, 192, 16)))
    with pytest.raises(VitqError, match="channels are mixed"):
        fold_normalization(trace(model, SHAPE), MEAN, STD)


FRONTS = {
    "padded": lambda self, x: tokens_of(functional.conv2d(x, self.conv.weight, None, 4, 3)),
    "unfold": lambda self, x: functional.linear(
        functional.unfold(x, 8, stride=6, padding=1).mT, self.conv.weight.flatten(1), self.fc.bias
    ),
    "reshape": lambda self, x: functional.linear(
        x.reshape(-1, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 192),
        self.conv.weight.permute(0, 2, 3, 1).flatten(1),
    ),
    "resized": lambda self, x: tokens_of(
        self.conv(functional.interpolate(x, (24, 40), mode="bicubic")) + self.conv(x)[..., :3, :1]
    ),
}


def tokens_of(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) as (B, N, C)."""
    return x.flatten(2).mT


@pytest.mark.parametrize("front", FRONTS)
def test_fold_normalization_goes_through_what_is_linear(front: str) -> None:
    model, pictures = toy(tokens=FRONTS[front]), pixels(3, seed=2)
    graph = trace(model, SHAPE)
    fold_normalization(graph, MEAN, STD)
    np.testing.assert_allclose(run(graph, pictures), float_logits(model, pictures), atol=1e-4)
    borders = [node for node in graph if node.name.endswith(".border")]
    assert len(borders) == (front in ("padded", "unfold"))
    for border in borders:
        inner = graph.real(border, "value").reshape(border.shape)
        assert not np.all(inner) and np.any(inner)


def test_fold_channel_scales_removes_all() -> None:
    graph = traced("layer_scale")
    assert count(graph, OpKind.CHANNEL_SCALE) == 4
    assert_kept(graph, fold_channel_scales)
    assert count(graph, OpKind.CHANNEL_SCALE) == 0


class Scaled(nn.Module):
    """A vector to multiply by."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = toy()
        self.kind = kind
        self.gamma = nn.Parameter(torch.linspace(-1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A channel scale where it cannot be folded."""
        x = self.inner.tokens(x)
        if self.kind == "norm":
            return self.inner.head(x + self.inner.norm(x) * self.gamma)
        y = self.inner.fc(x)
        return self.inner.head(y + y * self.gamma)


@pytest.mark.parametrize(("kind", "products"), [("norm", 0), ("two_readers", 1)])
def test_channel_scales_behind_a_norm_are_folded_and_others_are_products(
    kind: str, products: int
) -> None:
    graph = trace(Scaled(kind).eval(), SHAPE)
    assert_kept(graph, fold_channel_scales)
    assert count(graph, OpKind.CHANNEL_SCALE) == 0
    assert count(graph, OpKind.MULTIPLY) == products


@pytest.mark.parametrize("variant", ["class_token", "distilled"])
def test_select_moves_before_the_last_mlp(variant: str) -> None:
    graph = traced(variant)
    assert_kept(graph, select_tokens_early)
    linears = [node for node in graph if node.op is OpKind.LINEAR and len(node.shape) == 2]
    # proj, fc1, fc2 and head see one token; distilled selects two behind the last LayerNorm
    assert len(linears) == (4 if variant == "class_token" else 2)
    if variant == "class_token":
        select = max(i for i, node in enumerate(graph) if node.op is OpKind.SELECT)
        norms = [i for i, node in enumerate(graph) if node.op is OpKind.LAYER_NORM]
        assert sum(select < i for i in norms) == 2
        assert [node.shape for node in graph if node.op is OpKind.LAYER_NORM][-2:] == [(1, 24)] * 2


def test_select_keeps_execution_order() -> None:
    graph = traced("class_token")
    select_tokens_early(graph)
    seen: set[str] = set()
    for node in graph:
        assert set(node.inputs) <= seen
        seen.add(node.name)


def test_selected_tokens_are_computed_alone() -> None:
    graph = traced("class_token")
    widths: dict[str, int] = {}
    select_tokens_early(graph)
    GraphModule(graph, observer=lambda node, x: widths.update({node.name: x.numel()}))(
        torch.zeros(1, *SHAPE)
    )
    gelus = [widths[node.name] for node in graph if node.op is OpKind.GELU]
    assert gelus == [17 * 48, 48]


NEAR_MISSES = {
    "another reader": lambda self, x: (
        lambda y: self.last(y[:, 0]) + self.last(functional.gelu(y).mean(1))
    )(self.norm(x)),
    "last axis": lambda self, x: self.last(self.norm(x)[:, :, 0]),
    "mean": lambda self, x: self.last(self.norm(x).mean(1)),
    "softmax": lambda self, x: self.last(x.softmax(-1)[:, 0]),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_select_stays(name: str) -> None:
    graph = trace(toy(head=NEAR_MISSES[name], body=lambda self, x: x), SHAPE)
    before = [(node.name, node.op, node.inputs) for node in graph]
    select_tokens_early(graph)
    assert [(node.name, node.op, node.inputs) for node in graph] == before


def test_select_moves_over_a_sum_used_twice() -> None:
    graph = trace(toy(head=lambda self, x: self.last((x + x)[:, 1])), SHAPE)
    assert_kept(graph, select_tokens_early)
    assert sum(node.op is OpKind.SELECT for node in graph) == 1


def test_select_does_not_move_over_a_broadcast_sum() -> None:
    model = toy(head=lambda self, x: self.last((x + self.fc.bias)[:, 0]))
    graph = trace(model, SHAPE)
    before = [node.name for node in graph]
    assert_kept(graph, select_tokens_early)
    assert [node.name for node in graph] == before


def test_softmax_in_attention_is_deferred() -> None:
    graph = traced("class_token")
    assert_kept(graph, defer_softmax_normalization)
    assert count(graph, OpKind.SOFTMAX) == 0
    assert count(graph, OpKind.EXP) == count(graph, OpKind.NORMALIZED_MATMUL) == 2


SOFTMAX_STAYS = {
    "second operand": lambda self, x: self.last((x @ self.norm(x).softmax(-1))[:, 0]),
    "linear": lambda self, x: self.last(x.softmax(-1)[:, 0]),
    "two kinds of reader": lambda self, x: self.last(
        (lambda p: p @ x + self.fc(p))(self.norm(x).softmax(-1))[:, 0]
    ),
}


@pytest.mark.parametrize("name", SOFTMAX_STAYS)
def test_other_softmax_stays(name: str) -> None:
    graph = trace(toy(head=SOFTMAX_STAYS[name]), SHAPE)
    assert_kept(graph, defer_softmax_normalization)
    assert count(graph, OpKind.SOFTMAX) == 1 and count(graph, OpKind.EXP) == 0
