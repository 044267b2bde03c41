"""Rotary position embeddings in any spelling are two products with tables and their sum."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.quantization.vits import SHAPE, Toy, pixels, toy
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.rotary import simplify_rotations
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.rotations import rotations
from vitq.quantization.run.fake_quantize import GraphModule

Rotate = Callable[[torch.Tensor], torch.Tensor]
ANGLES = torch.linspace(0, 9, 16 * 16).reshape(16, 16)
COS, SIN = ANGLES.cos(), ANGLES.sin()


def halves(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([-x[..., 8:], x[..., :8]], -1)


def pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)


def rotated(order: Rotate, first: int = 0, last: int = 16) -> Callable[..., torch.Tensor]:
    """A branch whose tokens are rotated, all or those between."""

    def body(self: Toy, x: torch.Tensor) -> torch.Tensor:
        q = self.fc(self.norm(x))
        y = q[:, first:last]
        cos, sin = COS[: last - first], SIN[: last - first]
        y = y * cos + order(y) * sin
        if (first, last) != (0, 16):
            y = torch.cat([q[:, :first], y, q[:, last:]][not first :][: 3 - (last == 16)], 1)
        return x + self.fc(y)

    return body


SPELLED = {
    "halves": rotated(halves),
    "pairs": rotated(pairs),
    "behind a class token": rotated(halves, 1),
    "between": rotated(pairs, 2, 13),
}


def traced(name: str) -> Graph:
    return trace(toy(body=SPELLED[name]), SHAPE)


def count(graph: Graph, op: OpKind) -> int:
    return sum(node.op is op for node in graph)


@pytest.mark.parametrize("name", SPELLED)
def test_one_form_for_all(name: str) -> None:
    graph, x = traced(name), pixels(3)
    before = GraphModule(graph)(x).numpy()
    simplify_rotations(graph)
    np.testing.assert_allclose(GraphModule(graph)(x).numpy(), before, rtol=1e-5, atol=1e-5)
    assert count(graph, OpKind.TAKE) == 1 and count(graph, OpKind.MULTIPLY) == 2
    assert count(graph, OpKind.CONCAT) == 0 and count(graph, OpKind.SLICE) == 0
    (found,) = rotations(graph).values()
    cos, sin = (graph.real(table, "value").reshape(16, 16) for table in found)
    still = [row for row in range(16) if not sin[row].any()]
    outside = {"behind a class token": [0], "between": [0, 1, 13, 14, 15]}
    assert still == outside.get(name, still[:0]) or still == [0]
    assert np.all(cos[outside.get(name, [])] == 1)


def test_equal_tables_are_one_constant() -> None:
    def body(self: Toy, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = rotated(halves)(self, x)
        return x

    graph = trace(toy(body=body), SHAPE)
    simplify_rotations(graph)
    assert len(rotations(graph)) == 2
    assert len({table.name for found in rotations(graph).values() for table in found}) == 2


OTHERS: dict[str, Rotate] = {
    "another tensor": lambda q: q * COS + halves(q + 1) * SIN,
    "a channel left out": lambda q: q * COS + torch.cat([q[..., 8:], q[..., 8:] + q[..., :8]], -1),
    "tokens exchanged": lambda q: q * COS + q.flip(1) * SIN,
}


@pytest.mark.parametrize("name", OTHERS)
def test_near_misses_stay(name: str) -> None:
    graph = trace(toy(body=lambda self, x: x + self.fc(OTHERS[name](self.fc(self.norm(x))))), SHAPE)
    before = [(node.name, node.inputs) for node in graph]
    simplify_rotations(graph)
    assert [(node.name, node.inputs) for node in graph] == before
