"""A graph that is not its model is refused, with the place; one that is passes."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import MEAN, SHAPE, STD, pixels, toy, traced, vit
from vitq.compiler.stages.quantize import prepare
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.builder import Operand
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.spellings import registry
from vitq.quantization.graph.spellings.normalizing import layer_norm
from vitq.quantization.graph.spellings.pointwise import gelu
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.traced import check_traced

PIXELS = pixels(3).numpy()


def check(model: nn.Module, pictures: Any = PIXELS) -> None:
    check_traced(trace(model, pictures.shape[1:]), model, pictures, MEAN, STD)


def wrong_gelu(walk: Any, node: Any) -> Operand:
    """GELU's other form."""
    found = gelu(walk, node)
    walk.build.nodes[found.name].attrs["approximate"] = "tanh"
    return found


def wrong_eps(walk: Any, node: Any) -> Operand:
    """A norm with the usual eps, whatever the model's is."""
    found = layer_norm(walk, node)
    walk.build.nodes[found.name].attrs["eps"] = 1e-5
    return found


def test_right_graphs_pass() -> None:
    check_traced(traced("class_token"), vit(), PIXELS, MEAN, STD)
    check(toy(forward=lambda self, x: {"a": self.head(self.tokens(x)), "b": self.tokens(x)}))
    check(toy(), PIXELS[:1])


def test_a_wrong_spelling_is_refused_with_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._SPELLINGS, "gelu", wrong_gelu)
    with pytest.raises(VitqError) as refused:
        check(vit())
    assert re.fullmatch(
        r"the traced graph is not the model: its result logits differs by \S+ on calibration "
        r"pictures \(values up to \S+; allowed \S+\), first in blocks\.0\.mlp\.act \(GELU\): a "
        r"mistake of the tracer, .* report it",
        str(refused.value),
    )


def test_a_lost_eps_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy()
    model.norm = nn.LayerNorm(16, eps=1e-3)
    check(model)
    monkeypatch.setitem(registry._SPELLINGS, "layer_norm", wrong_eps)
    with pytest.raises(VitqError, match=r"logits differs .* first in norm \(LayerNorm\)"):
        check(model)


def test_what_no_module_holds_is_refused_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(walk: Any, node: Any) -> Operand:
        return walk.build.times(walk.x(node.args[0]), 2.0)

    monkeypatch.setitem(registry._SPELLINGS, "neg", doubled)
    with pytest.raises(VitqError, match=r"logits differs .* allowed \S+\): a mistake"):
        check(toy(head=lambda self, x: -self.last(x[:, 0])))


def test_each_of_several_results_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy(forward=lambda self, x: {"a": self.head(self.tokens(x)), "b": self.tokens(x)})
    graph = trace(model, SHAPE)
    graph.outputs = {"a": graph.outputs["a"], "b": graph.nodes[graph.outputs["b"]].inputs[0]}
    with pytest.raises(VitqError, match=r"its result b differs"):
        check_traced(graph, model, PIXELS, MEAN, STD)


def test_quantize_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._SPELLINGS, "gelu", wrong_gelu)
    with pytest.raises(VitqError, match=r"the traced graph is not the model: .* \(GELU\)"):
        prepare(QuantizeOptions(model="digits_vit", calib_count=2))


def random_head(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.last(self.norm(x)[:, 0]) * float(np.random.uniform(0.5, 1))


def test_a_random_model_is_named() -> None:
    with pytest.raises(VitqError, match=r"other results for the same pictures at each call: it"):
        check(toy(head=random_head))


class Noisy(nn.Linear):
    """A layer that is another at each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by a random number that PyTorch does not see."""
        return super().forward(x) * float(np.random.uniform(0.5, 1))


def test_a_random_module_is_named() -> None:
    model = toy()
    model.fc = Noisy(16, 16)
    with pytest.raises(VitqError, match=r"at each call, first in fc \(Noisy\): it draws random"):
        check(model.eval())


def test_a_model_that_counts_its_calls_is_named() -> None:
    calls = itertools.count(1)
    with pytest.raises(VitqError, match=r"at each call: it draws .* or counts its calls"):
        check(toy(head=lambda self, x: self.last(x[:, 0]) / float(next(calls))))


def test_a_model_that_is_another_while_it_is_exported() -> None:
    def head(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.last(x[:, 0] if torch.compiler.is_exporting() else x[:, 1])

    with pytest.raises(VitqError, match=r"unless the model does other things while torch.export"):
        check(toy(head=head))


@pytest.mark.parametrize("off, is_right", [(4e-6, True), (3e-4, False)])
def test_what_a_model_makes_of_rounding_is_allowed(off: float, is_right: bool) -> None:
    """exp(u) with u near 80 moves 80 times as much as u: of a nudge 8e-4, of these 3.2e-4, 2e-2."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 4))
    x = (torch.from_numpy(PIXELS[:2]) / 255 - torch.tensor(MEAN).reshape(-1, 1, 1)) / torch.tensor(
        STD
    ).reshape(-1, 1, 1)
    with torch.no_grad():
        model[1].bias.zero_()
        model[1].weight.mul_(80 / model(x).max())
    model.append(Exponential())
    graph = trace(model.eval(), SHAPE)
    (linear,) = (node for node in graph if node.op is OpKind.LINEAR)
    graph.set_param(linear, "weight", graph.real(linear, "weight") * np.float32(1 + off))
    if is_right:
        check_traced(graph, model, PIXELS, MEAN, STD)
        return
    with pytest.raises(VitqError, match="the traced graph is not the model"):
        check_traced(graph, model, PIXELS, MEAN, STD)


class Exponential(nn.Module):
    """exp(x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute it."""
        return x.exp()


def test_results_that_are_not_finite_are_the_models() -> None:
    wanted = r"returns NaN or infinity on calibration pictures \(10 of 10 values of its result log"
    with pytest.raises(VitqError, match=wanted):
        check(toy(head=lambda self, x: self.last(x[:, 0]) * 1e38 * 1e38))


def test_a_model_that_fails_is_told() -> None:
    def head(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting():
            raise RuntimeError("no such kernel")
        return self.last(x[:, 0])

    with pytest.raises(VitqError, match=r"the model fails on calibration pictures: .*no such kern"):
        check(toy(head=head))
