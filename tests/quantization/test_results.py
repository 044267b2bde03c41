"""Whatever a model packs its results in, every stage sees tensors by name."""

import collections
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import SHAPE, Toy
from vitq.compiler.stages.float_reference import float_runner
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import prepared
from vitq.quantization.model.results import return_tensors, taken_tensors, with_features
from vitq.quantization.run.fake_quantize import GraphModule


@dataclasses.dataclass
class Output:
    """As Transformers' ModelOutput."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


Named = collections.namedtuple("Named", ["scores"])
PACKED: dict[str, Any] = {
    "dataclass": lambda x: Output(x),
    "dict": lambda x: {"out": x},
    "nested dict": lambda x: {"aux": None, "main": {"logits": x}},
    "tuple": lambda x: (x,),
    "list with None": lambda x: [x, None, "text"],
    "named tuple": Named,
    "tensor": lambda x: x,
}


SEVERAL: dict[str, Any] = {
    "dataclass of several": ["logits", "hidden"],
    "dict of several": ["features", "logits"],
    "tuple of several": ["0", "1"],
    "tuple inside": ["main.0", "main.1"],
    "deeper ones": ["logits", "pooled"],
}
SEVERAL_PACKED: dict[str, Any] = {
    "dataclass of several": lambda x: Output(x, hidden=x * 2.0),
    "dict of several": lambda x: {"features": x * 2.0, "logits": x},
    "tuple of several": lambda x: (x, x * 2.0),
    "tuple inside": lambda x: {"main": (x, x * 2.0)},
    "deeper ones": lambda x: {"logits": x, "pooled": x * 2.0, "hidden_states": (x * 3.0, x)},
}


class Packing(Toy):
    """A model whose result is packed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        """Pack the logits."""
        return (PACKED | SEVERAL_PACKED)[self.kind](super().forward(x))


@pytest.mark.parametrize("kind", PACKED)
def test_tracing_and_the_float_model_take_it(kind: str) -> None:
    torch.manual_seed(0)
    module = prepared(Packing(kind))
    graph = trace(module, SHAPE)
    assert "last.weight" in graph.tensors, "names stay"
    pixels = np.full((2, *SHAPE), 100, np.uint8)
    logits = float_runner(module, (0.5,) * 3, (0.5,) * 3)(pixels)
    x = (torch.from_numpy(pixels) / 255 - 0.5) / 0.5
    assert np.array_equal(logits, Toy.forward(module, x).detach().numpy())


def test_a_model_in_hand_that_was_not_prepared() -> None:
    run = float_runner(Packing("dict").eval(), (0.5,) * 3, (0.5,) * 3)
    assert run(np.zeros((1, *SHAPE), np.uint8)).shape == (1, 5)


def test_twice_is_once() -> None:
    module = nn.Identity()
    assert return_tensors(return_tensors(module)) is module
    assert len(module._forward_hooks) == 1


@pytest.mark.parametrize("result", [None, "text", {}])
def test_what_holds_no_tensor_is_refused(result: Any) -> None:
    said = f"returns {type(result).__name__} without a tensor: return the logits"
    with pytest.raises(VitqError, match=said):
        taken_tensors(result)


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_results_have_names_and_an_order(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module = prepared(Packing(kind))
    with caplog.at_level("INFO"):
        graph = trace(module, SHAPE)
    assert list(graph.outputs) == SEVERAL[kind]
    said = "of its results logits, pooled are taken, and not hidden_states.0, hidden_states.1"
    assert (said in caplog.text) == (kind == "deeper ones")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    rows = float_runner(module, (0.5,) * 3, (0.5,) * 3)(pixels)
    x = (torch.from_numpy(pixels) / 255 - 0.5) / 0.5
    ours = GraphModule(graph)(x).numpy()
    np.testing.assert_allclose(ours, rows, rtol=0, atol=1e-5)
    parts = graph.layout.split(rows)
    logits = Toy.forward(module, x).detach().numpy()
    factors = {"dict of several": (2, 1)}.get(kind, (1, 2))
    for part, factor in zip(parts.values(), factors, strict=True):
        np.testing.assert_allclose(part, logits * factor, rtol=0, atol=1e-6)


class Embedding(nn.Module):
    """Ends in a LayerNorm, or says that it has no classes."""

    def __init__(self, ends_in_norm: bool, num_classes: int = 5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Identity() if ends_in_norm else nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """First token of (B, 3, H, W)."""
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.last(self.norm(tokens)[:, 0])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Embedding(True), "features"),
        (Embedding(False), "logits"),
        (Embedding(False, num_classes=0), "features"),
    ],
)
def test_only_class_scores_are_called_logits(module: nn.Module, name: str) -> None:
    graph = trace(prepared(module), SHAPE)
    assert list(graph.outputs) == [name]
    assert graph.layout.classes == (5 if name == "logits" else None)


def test_features_of_inner_modules_in_the_order_asked_for() -> None:
    module = prepared(Embedding(False))
    chosen = with_features(module, ("logits", "norm", "patch"))
    graph = trace(chosen, SHAPE)
    assert list(graph.outputs) == ["logits", "norm", "patch"]
    x = torch.rand(2, *SHAPE)
    found = chosen(x)
    np.testing.assert_array_equal(found["logits"].detach(), module(x).detach())
    assert module(x).shape == (2, 5), "the model itself is as it was"
    parts = graph.layout.split(GraphModule(graph)(x).numpy())
    for name, part in parts.items():
        np.testing.assert_allclose(part, found[name].detach().numpy(), rtol=0, atol=1e-5)


def test_what_is_not_asked_for_is_no_part_of_the_network() -> None:
    graph = trace(with_features(prepared(Embedding(False)), ("norm",)), SHAPE)
    assert list(graph.outputs) == ["norm"]
    assert not [key for key in graph.tensors if key.startswith("last")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("nrm",), r"Embedding has no module and no result 'nrm' \(did you mean norm\?\)"),
        (("unused",), "Embedding: the module unused is not called, or returns nothing"),
    ],
)
def test_features_that_are_not_there(names: tuple[str, ...], said: str) -> None:
    module = Embedding(False)
    module.unused = nn.Linear(1, 1)
    with pytest.raises(VitqError, match=said):
        trace(with_features(prepared(module), names), SHAPE)


def test_a_result_that_is_no_row_for_each_picture_is_refused() -> None:
    class Turned(Embedding):
        """Its channels come first."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(5, B)."""
            return super().forward(x).transpose(0, 1)

    with pytest.raises(VitqError, match=r"the model's result features is \(8, 1\) for one pict"):
        trace(prepared(Turned(True)), SHAPE)


def test_one_number_for_each_picture_needs_an_axis() -> None:
    class Score(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, 0]

    with pytest.raises(VitqError, match=r"is one number for each picture.*return it as \(N, 1\)"):
        trace(prepared(Score()), SHAPE)


def test_a_key_with_a_dot_is_the_models_own() -> None:
    """It is no way to an inner result, which would be left out beside others."""
    result = {"logits": torch.ones(1, 2), "stage.3": torch.ones(1, 3), "inner": (torch.ones(1),)}
    assert list(taken_tensors(result)) == ["logits", "stage.3"]

    class Dotted(Toy):
        def forward(self, x: torch.Tensor) -> Any:
            """Logits, and tokens under a name with a dot."""
            tokens = self.tokens(x)
            return {"logits": self.head(tokens), "stage.3": tokens}

    assert list(trace(prepared(Dotted()), SHAPE).outputs) == ["logits", "stage.3"]
    with pytest.raises(
        VitqError, match=r"two results that are called a\.b: give keys without dots"
    ):
        taken_tensors({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})
