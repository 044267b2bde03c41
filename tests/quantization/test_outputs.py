"""Several results and features: separate nodes, widths, and integers, from trace to reference."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import MEAN, SHAPE, STD, pixels
from vitq.quantization.graph.artifact import QuantizedModel, load, save
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.outputs import OutputLayout, join
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import prepared
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference


class Backbone(nn.Module):
    """Logits, the last LayerNorm and the residual stream in the middle, which is read on."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> Any:
        """Pictures (B, 3, H, W) to a dict."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        middle = x + self.fc2(nn.functional.gelu(self.fc1(self.norm1(x))))
        normed = self.norm2(middle + x)
        return {
            "logits": self.head(normed[:, 0]),
            "normed": normed,
            "patches": normed[:, 1:],
            "middle": middle,
            "again": middle,
        }


def backbone(recipe: str = "w8a8", method: str = "repq") -> Graph:
    """Quantize one with seeded weights."""
    torch.manual_seed(0)
    graph = trace(prepared(Backbone()), SHAPE)
    how = get_method(method)
    return quantize_graph(graph, pixels(8), Recipe.parse(recipe), how, MEAN, STD)


NAMES = ["logits", "normed", "patches", "middle", "again"]


def test_rows_are_taken_apart_as_they_were_joined() -> None:
    layout = OutputLayout({"a": (2, 3), "logits": (4,)})
    parts = {"a": np.arange(12).reshape(2, 2, 3), "logits": np.arange(8).reshape(2, 4)}
    rows = join(parts.values(), 2)
    assert rows.shape == (2, 10) and layout.classes == 4
    for name, part in layout.split(rows).items():
        np.testing.assert_array_equal(part, parts[name])
    only = np.zeros((2, 3, 4))
    assert join([only], 2) is only and OutputLayout({"a": (3, 4)}).split(only)["a"] is only


@pytest.mark.parametrize("recipe", ["w8a8", "w8a8-out8", "w4a4"])
@pytest.mark.parametrize("method", ["repq", "best", "pdquant"])
def test_integers_mean_what_simulation_means(recipe: str, method: str) -> None:
    graph = backbone(recipe, method)
    assert list(graph.outputs) == NAMES
    reference, pictures = IntegerReference(graph), pixels(3)
    codes = reference(pictures.numpy())
    simulated = graph.layout.split(GraphModule(graph, simulate=True)(pictures).numpy())
    for name, real in graph.layout.split(reference.real(codes)).items():
        noise = np.square(real - simulated[name]).sum() / np.square(simulated[name]).sum()
        assert noise < (1e-3 if recipe != "w4a4" else 0.1), name
        assert real.shape == (3, *graph.layout.shapes[name])


@pytest.mark.parametrize(("recipe", "bits"), [("w8a8", 16), ("w8a8-out8", 8), ("w8a8-out12", 12)])
def test_every_result_has_the_width_of_the_recipe(recipe: str, bits: int) -> None:
    graph = backbone(recipe)
    for name, node in graph.outputs.items():
        while graph.nodes[node].out is None:
            node = graph.operand(graph.nodes[node]).name
        out = graph.nodes[node].out
        assert out is not None and out.qmax - out.qmin in (2**bits - 1, 2**bits - 2), name


def test_the_residual_stream_stays_wide_where_a_result_of_it_is_narrow() -> None:
    graph = backbone("w8a8-out8")
    source = graph.operand(graph.nodes[graph.outputs["middle"]])
    assert source.op is OpKind.ADD and source.out is not None and source.out.qmax > 127
    assert graph.nodes[graph.outputs["middle"]].op is OpKind.REQUANTIZE


def test_no_node_is_left_that_changes_nothing() -> None:
    graph = backbone()
    results = [graph.nodes[node].op for node in graph.outputs.values()]
    assert OpKind.REQUANTIZE not in results


@pytest.mark.parametrize("method", ["repq", "best"])
def test_reparameterizing_a_layernorm_leaves_its_result_alone(method: str) -> None:
    torch.manual_seed(0)
    model = Backbone()
    floats = trace(prepared(model), SHAPE)
    pictures = pixels(4)
    x = (pictures / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    wanted = floats.layout.split(GraphModule(floats)(x).numpy())
    graph = backbone("w8a8", method)
    found = graph.layout.split(GraphModule(graph, simulate=True)(pictures).numpy())
    for name in NAMES:
        noise = np.square(found[name] - wanted[name]).sum() / np.square(wanted[name]).sum()
        assert noise < 1e-3, name


def test_an_artifact_keeps_names_and_order(tmp_path: Any) -> None:
    graph = backbone()
    save(tmp_path, QuantizedModel(graph, pixels(2).numpy(), {}))
    again = load(tmp_path).graph
    assert list(again.outputs.items()) == list(graph.outputs.items())
    pictures = pixels(2).numpy()
    np.testing.assert_array_equal(
        IntegerReference(again)(pictures), IntegerReference(graph)(pictures)
    )
