"""Importance against gradients that are known, and samples that follow it."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import MEAN, STD, pixels, traced
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.graph.rewrites import (
    defer_softmax_normalization,
    select_tokens_early,
    separate_outputs,
)
from vitq.quantization.graph.tracing import trace
from vitq.quantization.ranges.importance import EVEN_SHARE, measure_importance
from vitq.quantization.ranges.samples import (
    EXTRA_TOKENS,
    Sampler,
    extend_selection,
    extendable,
    selected_importance,
)


def test_importance_of_logits_is_known() -> None:
    """For cross entropy, E[(dL/dz_i)**2] = p_i (1 - p_i), each picture scaled to mean 1."""
    graph = traced("class_token")
    fold_normalization(graph, MEAN, STD)
    pictures = pixels(1)
    found = torch.zeros(7)
    repeats = pictures.repeat(400, 1, 1, 1)
    found = measure_importance(graph, {graph.output}, repeats)[graph.output].reshape(-1)
    from vitq.quantization.run.fake_quantize import GraphModule

    p = torch.softmax(GraphModule(graph)(pictures), -1)[0]
    # scaling each draw to mean 1 weighs labels; the expectation over labels is spelled out
    squares = (p - torch.eye(7)).square()
    expected = (p[:, None] * squares / squares.mean(1, keepdim=True)).sum(0)
    expected = EVEN_SHARE + (1 - EVEN_SHARE) * expected / expected.mean()
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0.15)


def test_tokens_that_do_not_reach_the_logits_are_the_even_share() -> None:
    graph = traced("class_token")
    fold_normalization(graph, MEAN, STD)
    last = [node for node in graph if node.op is OpKind.GELU][-1]
    found = measure_importance(graph, {last.name}, pixels(6))[last.name]
    assert found.shape == last.shape and float(found.mean()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found[0, 1:].numpy(), EVEN_SHARE, atol=1e-6)
    assert float(found[0, 0].mean()) > 2


def test_importance_is_repeatable() -> None:
    graph = traced("class_token")
    names = {node.name for node in graph if node.op is OpKind.LINEAR}
    first, second = (measure_importance(graph, names, pixels(5)) for _ in range(2))
    assert set(first) == names
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_samples_follow_importance() -> None:
    graph = traced("class_token")
    node = next(node for node in graph if node.op is OpKind.GELU)
    weights = torch.ones(node.shape)
    weights[0, 0] = 9.0
    value = torch.zeros(4, *node.shape[1:])
    value[:, 0] = 1.0
    sampler = Sampler(4, {node.name: weights})
    tokens = node.shape[1]
    expected = 9 / (9 + tokens - 1)
    assert sampler.values(node, value).mean() == pytest.approx(expected, abs=0.02)
    assert sampler.rows(node, value).mean() == pytest.approx(expected, abs=0.06)
    rows = sampler.row_weights(node, value)
    assert float(rows.sum()) == pytest.approx(1)
    assert float(rows.reshape(4, tokens)[:, 0].sum()) == pytest.approx(expected)
    weights[0, :, 0] *= 3
    assert float(sampler.channel_weights(node)[0]) > 2


def test_a_selection_brings_other_tokens() -> None:
    graph = traced("class_token")
    fold_normalization(graph, MEAN, STD)
    select_tokens_early(graph)
    defer_softmax_normalization(graph)
    select = next(n for n in graph if n.op is OpKind.SELECT and len(n.shape) == 2)
    assert extendable(graph, select)
    value = torch.arange(3 * 17 * 2, dtype=torch.float32).reshape(3, 17, 2)
    rows = extend_selection(select, value)
    assert torch.equal(rows[:3], value[:, 0])
    assert len(rows) >= 3 + 3 * EXTRA_TOKENS
    assert not any((row == value[:, 0]).all(1).any() for row in rows[3:])
    node = graph.consumers(select.name)[0]
    weights = Sampler(3, {}).row_weights(node, torch.zeros(len(rows), node.shape[-1]))
    assert float(weights[:3].sum()) == pytest.approx(1 - EVEN_SHARE)
    assert float(weights.sum()) == pytest.approx(1)


def test_a_selection_that_layout_follows_stays() -> None:
    graph = traced("mean")
    selects = [node for node in graph if node.op is OpKind.SELECT]
    assert selects and not any(extendable(graph, node) for node in selects)


class Apart(nn.Module):
    """The difference of two tokens: its second one is multiplied by -1."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(tokens[:, 1] - tokens[:, 0])


class Joined(Apart):
    """The sum of two tokens, as of two heads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(tokens[:, 1]) + self.head(tokens[:, 0])


@pytest.mark.parametrize(("model", "extended"), [(Apart(), False), (Joined(), True)])
def test_selections_that_meet_have_as_many_rows(model: nn.Module, extended: bool) -> None:
    graph = trace(model.eval(), (3, 16, 16))
    selects = [node for node in graph if node.op is OpKind.SELECT]
    assert len(selects) == 2
    assert [extendable(graph, node) for node in selects] == [extended] * 2


class Embedding(nn.Module):
    """All normalized tokens, the first of them alone, and the others."""

    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.layer, self.norm, self.mixes = nn.Linear(8, 8), nn.LayerNorm(8), mixes

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self.layer(self.embed(x).flatten(2).transpose(1, 2))
        normed = self.norm(tokens)
        if self.mixes:
            normed = normed + normed.mean(1, keepdim=True)
        return {"norm": normed, "class": normed[:, 0], "patches": normed[:, 1:]}


def test_a_selected_token_keeps_its_share_among_all_of_them() -> None:
    graph = trace(Embedding().eval(), (3, 16, 16))
    separate_outputs(graph)
    select_tokens_early(graph)
    found = selected_importance(graph)
    assert [graph.nodes[name].op for name in found] == [OpKind.LAYER_NORM, OpKind.LINEAR]
    for weights in found.values():
        assert weights.shape == (1, 16, 8) and float(weights.mean()) == pytest.approx(1)
        assert float(weights[:, 0].sum() / weights.sum()) > EVEN_SHARE
        assert torch.equal(weights[:, 1:], torch.full((1, 15, 8), 1 - EVEN_SHARE))


def test_no_token_has_a_share_where_none_is_a_result_or_tokens_mix_behind() -> None:
    mixing = trace(Embedding(mixes=True).eval(), (3, 16, 16))
    found = selected_importance(mixing)
    assert not any(mixing.nodes[name].op in (OpKind.LAYER_NORM, OpKind.LINEAR) for name in found)
    alone = traced("class_token")
    select_tokens_early(alone)
    assert selected_importance(alone) == {}
