"""Whatever a model packs its logits in, every stage sees one tensor."""

import collections
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import SHAPE, Toy
from vitq.compiler.stages.evaluate import float_runner
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import prepared
from vitq.quantization.model.results import one_tensor, return_one_tensor


@dataclasses.dataclass
class Output:
    """As Transformers' ModelOutput."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


Named = collections.namedtuple("Named", ["scores"])
PACKED: dict[str, Any] = {
    "dataclass": lambda x: Output(x),
    "dataclass of several": lambda x: Output(x, hidden=x + 1),
    "dict": lambda x: {"out": x},
    "nested dict": lambda x: {"aux": None, "main": {"logits": x}},
    "dict of several": lambda x: {"features": x + 1, "logits": x},
    "tuple": lambda x: (x,),
    "list with None": lambda x: [x, None, "text"],
    "named tuple": Named,
    "tensor": lambda x: x,
}


class Packing(Toy):
    """A model whose result is packed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        """Pack the logits."""
        return PACKED[self.kind](super().forward(x))


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
    assert return_one_tensor(return_one_tensor(module)) is module
    assert len(module._forward_hooks) == 1


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (
            {"a": torch.ones(1), "b": torch.ones(1)},
            r"returns 2 tensors \(a, b\): return the logits",
        ),
        ((torch.ones(1), torch.ones(1)), r"returns 2 tensors \(0, 1\)"),
        (None, "returns NoneType without a tensor"),
        ("text", "returns str without a tensor"),
        ({}, "returns dict without a tensor"),
    ],
)
def test_what_holds_no_logits_is_refused(result: Any, said: str) -> None:
    with pytest.raises(VitqError, match=said):
        one_tensor(result)
