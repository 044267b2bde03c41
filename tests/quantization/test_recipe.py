"""Recipes: names, widths, and narrow widths through quantizer, reference and export."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.parity import compare, run_onnx
from export.qdq import save_onnx, to_onnx
from numerics.errors import VitqError
from quantization.fake_quantize import GraphModule
from quantization.graph import OpKind
from quantization.recipe import Recipe
from quantization.reference import IntegerReference
from tests.quantization.vits import VARIANTS, float_logits, lowest_cosine, pixels, quantized


@given(st.integers(2, 8), st.integers(2, 8))
def test_parse_reads_what_name_writes(weight_bits: int, activation_bits: int) -> None:
    recipe = Recipe.parse(f"w{weight_bits}a{activation_bits}")
    assert recipe == Recipe(weight_bits, activation_bits)
    assert Recipe.parse(recipe.name) == recipe


@pytest.mark.parametrize("name", ["", "w8", "8a8", "w8a8 ", "W8A8", "w8a8g32", "wxay", "w-8a8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(VitqError, match="write w<bits>a<bits>, such as w8a8"):
        Recipe.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w1a8", "weight_bits is 1: choose 2 to 8"),
        ("w9a8", "weight_bits is 9: choose 2 to 8"),
        ("w8a1", "activation_bits is 1: choose 2 to 8"),
        ("w8a16", "activation_bits is 16: choose 2 to 8"),
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
        "weight_bits": 4,
        "activation_bits": 8,
        "residual_bits": 16,
        "nonlinear": "ivit",
    }
    with pytest.raises(FrozenInstanceError):
        recipe.weight_bits = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "closeness"), [("w8a8", 0.99), ("w6a6", 0.97), ("w4a8", 0.8), ("w4a4", 0.7)]
)
def test_widths_through_all_stages(name: str, closeness: float, tmp_path: Path) -> None:
    graph, recipe, pictures = quantized("class_token", name), Recipe.parse(name), pixels(8)
    for node in graph:
        if node.op in (OpKind.LINEAR, OpKind.CONV2D):
            limit = 2 ** (recipe.weight_bits - 1) - 1
            assert np.abs(graph.tensor(node, "weight")).max() == limit
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
    assert narrow == {(-8, 7)}
    seen: dict[str, int] = {}

    def look(node: object, x: torch.Tensor) -> None:
        seen[node.name] = len(torch.unique(x))  # type: ignore[attr-defined]

    GraphModule(graph, simulate=True, observer=look)(pixels(2))
    layouts = [n for n in graph if n.op in (OpKind.EXPAND, OpKind.RESHAPE) and n.inputs]
    for node in layouts:
        source = graph.operand(node)
        if source.out is not None and source.out.qmax == 7:
            assert seen[node.name] <= 16
