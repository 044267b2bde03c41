"""How much memory a walk over all calibration pictures takes, against one that is watched."""

from typing import Any

import pytest
import torch

from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import calibration_images
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.ranges.memory import COPIES, FLOAT_BYTES, walk_bytes
from vitq.quantization.ranges.sequential import Walk


@pytest.fixture
def float_graph(digits_model: torch.nn.Module) -> Graph:
    return trace(digits_model, (3, 32, 32))


def test_methods_that_stream_take_none(float_graph: Graph) -> None:
    assert walk_bytes(float_graph, 50_000, get_method("minmax")) == 0
    one, many = (walk_bytes(float_graph, number, get_method("repq")) for number in (1, 1000))
    assert many == 1000 * one > 0
    assert walk_bytes(float_graph, 1, get_method("ptq4vit")) < one  # without a float network


@pytest.mark.parametrize("name", ["repq", "ptq4vit"])
def test_a_walk_holds_no_more_than_that(
    name: str, float_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, largest, visit = 4, [0], Walk._visit

    def watched(walk: Walk, node: Node) -> Any:
        value = visit(walk, node)
        held = [*walk.values.values(), *walk.exact.values()]
        size = sum(each.nelement() for each in held) + COPIES * value.nelement()
        largest[0] = max(largest[0], size * FLOAT_BYTES)
        return value

    monkeypatch.setattr(Walk, "_visit", watched)
    expected = walk_bytes(float_graph, number, get_method(name))
    pixels = torch.from_numpy(calibration_images(number))
    quantize_graph(float_graph, pixels, Recipe(8, 8), get_method(name), MEAN, STD)
    assert 0.5 * expected <= largest[0] <= 1.2 * expected
