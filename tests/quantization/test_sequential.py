"""Every method on every structure: integers agree with the simulation, and calibration pays."""

import numpy as np
import pytest

from quantization.fake_quantize import GraphModule
from quantization.methods import METHODS
from quantization.recipe import Recipe
from quantization.reference import IntegerReference
from tests.quantization.vits import (
    VARIANTS,
    float_logits,
    lowest_cosine,
    pixels,
    quantize,
    quantized,
    traced,
)

SEARCHED = ["repq", "ptq4vit", "pdquant", "best"]


@pytest.mark.parametrize("method", SEARCHED)
@pytest.mark.parametrize("variant", ["class_token", "distilled", "mean", "registers"])
def test_integers_agree_with_the_simulation(variant: str, method: str) -> None:
    graph, pictures = quantized(variant, "w8a8", method), pixels(6, seed=5)
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    assert lowest_cosine(integer, simulated) > 0.998
    assert lowest_cosine(integer, float_logits(VARIANTS[variant](), pictures)) > 0.98


@pytest.mark.parametrize("variant", ["class_token", "normalized_query_and_key", "layer_scale"])
@pytest.mark.parametrize("method", SEARCHED)
def test_four_bits_run_in_integers(variant: str, method: str) -> None:
    graph, pictures = quantized(variant, "w4a4", method), pixels(6, seed=5)
    assert all(node.out is None or node.out.qmax < 2**15 for node in graph)
    reference = IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS[variant](), pictures)) > 0.8


@pytest.mark.parametrize("method", SEARCHED)
def test_published_nonlinear_forms_keep_one_range(method: str) -> None:
    graph = quantize(traced("class_token"), Recipe(4, 6, nonlinear="ivit"), method)
    assert not any("twin_shift" in node.attrs or "log_steps" in node.attrs for node in graph)
    pictures, reference = pixels(4, seed=9), IntegerReference(graph)
    integer = (reference(pictures.numpy()) * reference.output_scale).astype(np.float32)
    assert lowest_cosine(integer, float_logits(VARIANTS["class_token"](), pictures)) > 0.95


def test_the_methods_that_search_are_tested_here() -> None:
    assert set(METHODS) - {"minmax", "percentile"} == set(SEARCHED)
