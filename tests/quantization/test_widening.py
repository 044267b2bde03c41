"""Which parts of layers are narrow, which come first, and a bisection that cannot miss."""

from collections.abc import Callable
from math import ceil, log2

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.quantization.vits import MEAN, STD, lively
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.origins import label_of
from vitq.quantization.graph.tracing import trace
from vitq.quantization.mixed.sensitivity import Sensitivity
from vitq.quantization.mixed.widening import (
    NarrowPart,
    dearest_first,
    fewest,
    narrow_parts,
    weight_bytes,
    widened_recipe,
    widest_recipe,
)
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.plan.widths import ACTIVATION, WEIGHT, layer_widths
from vitq.quantization.ranges.calibrate import quantize_graph


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_bisection_finds_the_first_that_holds(numbers: tuple[int, int]) -> None:
    number, first = numbers
    asked: list[int] = []

    def holds(n: int) -> bool:
        asked.append(n)
        return n >= first

    assert fewest(number, holds) == first
    assert len(asked) <= ceil(log2(number)) and all(0 < n < number for n in asked)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_where_it_does_not_hold_in_order_one_fewer_failed(answers: list[bool]) -> None:
    known = [False, *answers, True]
    found = fewest(len(known) - 1, known.__getitem__)
    assert known[found] and not known[found - 1]


def test_narrow_parts_are_what_the_recipe_narrows(digits_graph: Graph) -> None:
    parts = narrow_parts(digits_graph, Recipe.parse("w4a6"))
    weights = [p for p in parts if p.part == WEIGHT]
    inputs = [p for p in parts if p.part == ACTIVATION]
    layers = [n.name for n in digits_graph if n.op is OpKind.LINEAR]
    assert [p.layers for p in weights] == [(name,) for name in layers[:-1]]
    assert {p.bits for p in weights} == {4} and {p.bits for p in inputs} == {6}
    assert len(inputs) == len(layers) - 1 + 8  # not the last layer's, two products a block
    assert narrow_parts(digits_graph, Recipe()) == []
    assert {p.part for p in narrow_parts(digits_graph, Recipe.parse("w3a8"))} == {WEIGHT}
    first = narrow_parts(digits_graph, Recipe.parse("w8a8-first4-last6"))
    assert [(p.part, p.bits) for p in first] == [(WEIGHT, 4), (WEIGHT, 6), (ACTIVATION, 6)]


class Spelled(nn.Module):
    """q, k and v are three layers that read one LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.embed = nn.Conv2d(3, 12, 8, 8)
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        scores = self.q(tokens) @ self.k(tokens).transpose(1, 2)
        return self.head((scores.softmax(-1) @ self.v(tokens)).mean(1))


def test_layers_that_read_one_quantizer_are_widened_together() -> None:
    model = lively(Spelled())
    graph = trace(model, (3, 32, 32))
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    quantize_graph(graph, pixels, Recipe(), get_method("minmax"), MEAN, STD)
    recipe = Recipe.parse("w8a4")
    together, *others = [p for p in narrow_parts(graph, recipe) if len(p.layers) > 1]
    assert [label_of(graph.nodes[name]) for name in together.layers] == ["q", "k", "v"]
    assert not others
    wider = widened_recipe(graph, recipe, [together])
    assert wider.layers == tuple(LayerBits(name, 8, 8) for name in "qkv")


def test_the_dearest_come_first_and_equals_stay_in_order() -> None:
    parts = [NarrowPart((name,), WEIGHT, 4) for name in "abcd"]
    noise = {"a": 0.1, "b": 0.3, "c": 0.1, "d": 0.2}
    measured = [Sensitivity(name, "linear", WEIGHT, 4, noise[name], 0.0) for name in "dcba"]
    measured.append(Sensitivity("a", "linear", WEIGHT, 3, 9.0, 0.0))  # another width
    assert [part.layers[0] for part in dearest_first(parts, measured)] == ["b", "d", "a", "c"]


def test_a_wider_recipe_changes_its_parts_alone(digits_graph: Graph) -> None:
    given = Recipe(4, 4, layers=(LayerBits("linear_4", 3, 5), LayerBits("linear_5", 2, 2)))
    parts = [
        NarrowPart(("linear_4",), WEIGHT, 3),
        NarrowPart(("linear_6",), ACTIVATION, 4),
        NarrowPart(("linear_6",), WEIGHT, 4),
    ]
    wider = widened_recipe(digits_graph, given, parts)
    name = label_of(digits_graph.nodes["linear_4"])
    assert name == "blocks.1.attn.qkv"
    assert wider.layers == (
        LayerBits("linear_5", 2, 2),
        LayerBits(name, 8, 5),
        LayerBits(label_of(digits_graph.nodes["linear_6"]), 8, 8),
    )
    before, after = (layer_widths(digits_graph, recipe) for recipe in (given, wider))
    changed = {n for n in before if before[n][1:] != after[n][1:]}
    assert changed == {"linear_4", "linear_6"}
    assert widest_recipe(wider) == Recipe() and Recipe() != wider


@pytest.mark.parametrize("name", ["w8a8", "w4a4", "w3a8-first4-last2"])
def test_bytes_of_weights(
    name: str, quantize_digits: Callable[..., Graph], digits_graph: Graph
) -> None:
    """Against the codes of a model with these widths: 4 bits and fewer are packed."""
    graph, total = quantize_digits(name, "minmax"), 0
    for node in graph:
        if node.op in (OpKind.LINEAR, OpKind.CONV2D):
            codes = graph.tensor(node, "weight")
            bits = {127: 8, 7: 4, 3: 3, 1: 2}[int(graph.qparams[node.params["weight"]].qmax)]
            total += -(-codes.size * (bits if bits <= 4 else 8) // 8)
    assert weight_bytes(digits_graph, Recipe.parse(name)) == total
