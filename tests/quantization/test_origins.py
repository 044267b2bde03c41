"""Nodes are called like the modules that compute them, and point to lines of code."""

from pathlib import Path

import pytest
import torch

from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.origins import label_of
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.plan.widths import layer_widths


@pytest.fixture(scope="module")
def graph(digits_model: torch.nn.Module) -> Graph:
    return trace(digits_model, (3, 32, 32))


def test_labels_are_full_names_of_modules(graph: Graph, digits_model: torch.nn.Module) -> None:
    labels = {node.name: label_of(node) for node in graph}
    for node in graph:
        if node.op in (OpKind.LINEAR, OpKind.CONV2D, OpKind.LAYER_NORM, OpKind.GELU):
            module = digits_model.get_submodule(labels[node.name])
            wanted = OpKind.LAYER_NORM if "Norm" in type(module).__name__ else node.op
            assert wanted is node.op
    assert labels["linear_4"] == "blocks.1.attn.qkv"
    assert labels["scaled_dot_product_attention_1.scores"] == "blocks.1.attn: matmul"
    assert {labels[n] for n in ("getitem", "getitem_2")} == {
        "blocks.0.attn: select 0",
        "blocks.0.attn: select 2",
    }
    assert {"cls_token", "pos_embed"} <= set(labels.values())


def test_sources_are_lines_of_the_models_code(graph: Graph) -> None:
    name, line = graph.nodes["linear_4"].source.rsplit(":", 1)
    assert name.endswith("models/digits_vit/model.py")
    assert "self.qkv(x)" in Path(name).read_text().splitlines()[int(line) - 1]


def test_a_model_that_does_not_say_keeps_the_nodes_names() -> None:
    assert label_of(Node("linear_5", OpKind.LINEAR, (), (1, 2), 0)) == "linear_5"


def test_recipes_take_the_names_of_modules(graph: Graph) -> None:
    plain = layer_widths(graph, Recipe(layers=(LayerBits("linear_4", 3, 5),)))
    named = layer_widths(graph, Recipe(layers=(LayerBits("blocks.1.attn.qkv", 3, 5),)))
    assert plain == {k: v._replace(layer=plain[k].layer) for k, v in named.items()}
    assert named["linear_4"][1:] == (3, 5)
