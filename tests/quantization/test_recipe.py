"""Recipes: names, widths, and narrow widths through quantizer, reference and export."""

import json
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.quantization.vits import (
    VARIANTS,
    float_logits,
    lowest_cosine,
    pixels,
    quantize,
    quantized,
    traced,
)
from vitq.export.parity import compare, run_onnx
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.plan.widths import first_layers, last_layers, layer_widths
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference


def weight_bits(graph: Graph) -> list[int]:
    """Width of each layer's weights, in execution order."""
    layers = [node for node in graph if node.op in (OpKind.LINEAR, OpKind.CONV2D)]
    codes = [graph.tensor(node, "weight").astype(np.int64) for node in layers]
    return [int(np.maximum(code, ~code).max()).bit_length() + 1 for code in codes]


@given(st.integers(2, 8), st.integers(2, 8))
def test_parse_reads_what_name_writes(weight_bits: int, activation_bits: int) -> None:
    recipe = Recipe.parse(f"w{weight_bits}a{activation_bits}")
    assert recipe == Recipe(weight_bits, activation_bits)
    assert Recipe.parse(recipe.name) == recipe
    ends = replace(recipe, first_bits=activation_bits, last_bits=weight_bits)
    assert Recipe.parse(ends.name) == ends
    assert (recipe.name == ends.name) == (recipe == ends)
    narrow = replace(ends, output_bits=8 + weight_bits)
    assert Recipe.parse(narrow.name) == narrow


@pytest.mark.parametrize(
    "name", ["", "w8", "8a8", "w8a8 ", "W8A8", "w8a8g32", "wxay", "w-8a8", "w4a4-last4-first4"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(VitqError, match=r"'w8a' is unknown \(did you mean w8a8\?\)"):
        Recipe.parse("w8a")
    with pytest.raises(VitqError, match="write w<bits>a<bits>, such as w8a8"):
        Recipe.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w1a8", "weight_bits is 1: choose 2 to 8"),
        ("w9a8", "weight_bits is 9: choose 2 to 8"),
        ("w8a1", "activation_bits is 1: choose 2 to 8"),
        ("w8a16", "activation_bits is 16: choose 2 to 8"),
        ("w8a8-out7", "output_bits is 7: choose 8 to 16"),
        ("w4a4-first1", "first_bits is 1: choose 2 to 8"),
        ("w4a4-last9", "last_bits is 9: choose 2 to 8"),
    ],
)
def test_widths_that_nothing_executes_are_refused(name: str, message: str) -> None:
    with pytest.raises(VitqError, match=message):
        Recipe.parse(name)


def test_residual_bits_and_nonlinear_are_checked() -> None:
    with pytest.raises(VitqError, match="residual_bits is 32: choose 8 to 16"):
        Recipe(residual_bits=32)
    with pytest.raises(VitqError, match="choose vitq or ivit"):
        Recipe.parse("w8a8", "float")  # type: ignore[arg-type]


def test_a_recipe_is_immutable_data() -> None:
    recipe = Recipe.parse("w4a8", "ivit")
    assert recipe.to_json() == {
        "name": "w4a8",
        "weight_bits": 4,
        "activation_bits": 8,
        "first_bits": 8,
        "last_bits": 8,
        "residual_bits": 16,
        "nonlinear": "ivit",
        "layers": [],
        "output_bits": None,
        "label": "",
    }
    with pytest.raises(FrozenInstanceError):
        recipe.weight_bits = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "closeness"), [("w8a8", 0.99), ("w6a6", 0.97), ("w4a8", 0.8), ("w4a4", 0.7)]
)
def test_widths_through_all_stages(name: str, closeness: float, tmp_path: Path) -> None:
    graph, recipe, pictures = quantized("class_token", name), Recipe.parse(name), pixels(8)
    layers = [node for node in graph if node.op in (OpKind.LINEAR, OpKind.CONV2D)]
    assert weight_bits(graph) == [8, *[recipe.weight_bits] * (len(layers) - 2), 8]
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > closeness

    model = to_onnx(graph, {"recipe": name})
    clips = sum(node.op_type == "Clip" for node in model.graph.node)
    assert (clips > 0) == (recipe.activation_bits < 8)
    save_onnx(model, tmp_path / "network.onnx")
    exported = run_onnx(tmp_path / "network.onnx", pictures.numpy())
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    parity = compare(simulated, exported)
    assert parity.mean_cosine > 0.998, parity
    assert compare(integer, exported).mean_cosine > 0.95


def test_narrow_codes_stay_in_their_range() -> None:
    graph = quantized("class_token", "w4a4")
    narrow = {
        (node.out.qmin, node.out.qmax)
        for node in graph
        if node.out is not None and node.op is not OpKind.EXP and node.out.qmax < 255
    }
    assert narrow == {(-8, 7), (-128, 127)}  # the last layer's input
    seen: dict[str, int] = {}

    def look(node: object, x: torch.Tensor) -> None:
        seen[node.name] = len(torch.unique(x))  # type: ignore[attr-defined]

    GraphModule(graph, simulate=True, observer=look)(pixels(2))
    layouts = [n for n in graph if n.op in (OpKind.EXPAND, OpKind.RESHAPE) and n.inputs]
    for node in layouts:
        source = graph.operand(node)
        if source.out is not None and source.out.qmax == 7:
            assert seen[node.name] <= 16


def test_first_and_last_layers_have_their_own_widths() -> None:
    graph = quantized("class_token", "w3a4-first6-last5")
    first, *blocks, last = weight_bits(graph)
    assert (first, set(blocks), last) == (6, {3}, 5)
    head = next(node for node in reversed(list(graph)) if node.op is OpKind.LINEAR)
    source = graph.operand(head)
    while source.out is None:
        source = graph.operand(source)
    assert (source.out.qmin, source.out.qmax) == (-16, 15)


def test_distilled_heads_are_both_last() -> None:
    graph = traced("distilled")
    heads = last_layers(graph)
    assert len(heads) == 2
    assert len(first_layers(graph)) == 1
    widths = layer_widths(graph, Recipe.parse("w4a4-first3-last7"))
    assert [widths[head][1:] for head in heads] == [(7, 7), (7, 7)]
    assert widths[first_layers(graph)[0]].weight_bits == 3


def test_layers_have_widths_of_their_own(tmp_path: Path) -> None:
    graph = quantized("class_token", "w4a4")
    layers = [node.name for node in graph if node.op is OpKind.LINEAR]
    own = (LayerBits(layers[1], 8, 6), LayerBits(layers[2], 2, 8))
    recipe = Recipe(4, 4, layers=own)
    assert re.fullmatch(r"w4a4-mixed-[0-9a-f]{8}", recipe.name)
    assert recipe.name != Recipe(4, 4, layers=own[:1]).name

    path = tmp_path / "budget-2MB.json"
    path.write_text(json.dumps(recipe.to_json()))
    stored = Recipe.parse(str(path))
    assert stored.name == "budget-2MB" and stored.layers == own
    mixed = quantize(traced("class_token"), stored)
    bits = dict(zip(layers, weight_bits(mixed)[1:], strict=True))
    assert [bits[name] for name in layers[1:3]] == [8, 2]
    assert bits[layers[0]] == 4
    spread = {int(np.unique(IntegerReference(mixed)(pixels(2).numpy())).size)}
    assert spread != {1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"mixed\.json is no recipe: it cannot be read as JSON: Expecting property name"),
        ("[]", "is no recipe: give an object such as"),
        ('{"bits": 4}', "the key 'bits' is unknown"),
        ('{"layers": [{"layer": "a", "weight_bits": 4}]}', "layer a lacks activation_bits: .*"),
        (
            '{"layers": [{"layer": "a", "weight_bits": 9, "activation_bits": 8}]}',
            r"the recipe .*mixed\.json is refused: weight_bits of a is 9: choose 2 to 8",
        ),
    ],
)
def test_files_that_are_no_recipes(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mixed.json"
    path.write_text(content)
    with pytest.raises(VitqError, match=message):
        Recipe.parse(str(path))


def test_a_layer_that_is_not_there_is_named() -> None:
    recipe = Recipe(layers=(LayerBits("block_9", 4, 4),))
    with pytest.raises(VitqError, match=r"names block_9: the layers are conv2d .*, linear "):
        quantize(traced("class_token"), recipe)
    with pytest.raises(VitqError, match="a recipe called 'a/b'"):
        Recipe(label="a/b")
