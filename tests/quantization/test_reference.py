"""The integer reference against hand computation, simulation and itself."""

import copy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.vits import VARIANTS, lowest_cosine, pixels, quantized
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import PerAxis, QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import load_model
from vitq.quantization.pictures.pictures import load_pictures
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference

INT16 = (-(2**15), 2**15 - 1)


def hand_made() -> Graph:
    """2 x 2 patches of 2 x 4 pixels, one linear layer with a zero point on its input."""
    random = np.random.RandomState(0)
    tensors = {
        "cw": random.randint(-127, 128, (3, 1, 2, 2)).astype(np.int8),
        "cb": random.randint(-500, 500, 3).astype(np.int32),
        "fw": random.randint(-7, 8, (2, 3)).astype(np.int8),
        "fb": random.randint(-50, 50, 2).astype(np.int32),
    }
    qparams = {
        "cw": QuantParams(np.array([0.01, 0.02, 0.005]), np.zeros(3), -127, 127, PerAxis(0)),
        "fw": QuantParams(np.array([0.25, 0.125]), np.zeros(2), -7, 7, PerAxis(0)),
    }
    conv, fc = {"weight": "cw", "bias": "cb"}, {"weight": "fw", "bias": "fb"}
    nodes = [
        Node("x", OpKind.INPUT, (), (1, 1, 2, 4), 0),
        Node("conv", OpKind.CONV2D, ("x",), (1, 3, 1, 2), 0, conv),
        Node("flat", OpKind.RESHAPE, ("conv",), (1, 3, 2), 0),
        Node("rows", OpKind.PERMUTE, ("flat",), (1, 2, 3), 0, attrs={"axes": [0, 2, 1]}),
        Node("fc", OpKind.LINEAR, ("rows",), (1, 2, 2), 0, fc),
    ]
    graph = Graph({node.name: node for node in nodes}, {"logits": "fc"}, dict(tensors), qparams)
    graph.nodes["x"].out = QuantParams.per_tensor(1 / 255, 0, 0, 255)
    graph.nodes["rows"].out = QuantParams.per_tensor(0.06, -11, -128, 127)
    graph.nodes["fc"].out = QuantParams.per_tensor(0.07, 0, *INT16)
    return graph


def rescaled(acc: int, factor: Fraction, zero_point: int, low: int, high: int) -> int:
    """Half up, in exact arithmetic."""
    return min(max(int((acc * factor + Fraction(1, 2)) // 1) + zero_point, low), high)


def test_a_small_graph_by_hand() -> None:
    graph = hand_made()
    picture = np.random.RandomState(1).randint(0, 256, (2, 1, 2, 4)).astype(np.uint8)
    logits = IntegerReference(graph)(picture)
    exact = {n.name: Fraction(float(n.out.scale)) for n in graph if n.out is not None}
    weights = {k: [Fraction(float(s)) for s in q.scale] for k, q in graph.qparams.items()}
    for b in range(2):
        for token in range(2):
            patch = picture[b, 0, :, 2 * token : 2 * token + 2].astype(int)
            row = []
            for o in range(3):
                acc = int((patch * graph.tensors["cw"][o, 0]).sum()) + int(graph.tensors["cb"][o])
                factor = exact["x"] * weights["cw"][o] / exact["rows"]
                row.append(rescaled(acc, factor, -11, -128, 127))
            for o in range(2):
                products = zip(row, graph.tensors["fw"][o].tolist(), strict=True)
                acc = sum((code + 11) * w for code, w in products) + int(graph.tensors["fb"][o])
                factor = exact["rows"] * weights["fw"][o] / exact["fc"]
                assert logits[b, token, o] == rescaled(acc, factor, 0, *INT16)


def logits_of(graph: Graph, pictures: UInt8Array) -> FloatArray:
    """Integer logits in real units."""
    reference = IntegerReference(graph)
    return reference(pictures) * reference.output_scale


def test_digits_against_float_and_simulation(
    digits_graph: Graph, digits_pixels: UInt8Array, digits_logits: FloatArray
) -> None:
    logits = logits_of(digits_graph, digits_pixels)
    # repq cuts ranges: its worst of the 32 pictures is at 0.9990, and one near tie changes sides.
    assert lowest_cosine(logits, digits_logits) > 0.9985
    assert (logits.argmax(axis=1) == digits_logits.argmax(axis=1)).mean() >= 31 / 32
    simulated = GraphModule(digits_graph, simulate=True)(torch.from_numpy(digits_pixels)).numpy()
    assert lowest_cosine(logits, simulated) > 0.999


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_digits_with_other_methods(
    method: str,
    quantize_digits: Callable[..., Graph],
    digits_pixels: UInt8Array,
    digits_logits: FloatArray,
) -> None:
    logits = logits_of(quantize_digits(method=method), digits_pixels)
    assert lowest_cosine(logits, digits_logits) > 0.99


def test_digits_with_the_nonlinear_forms_of_ivit(
    quantize_digits: Callable[..., Graph], digits_pixels: UInt8Array, digits_logits: FloatArray
) -> None:
    graph = quantize_digits(nonlinear="ivit")
    assert {n.attrs["nonlinear"] for n in graph if n.op in (OpKind.SOFTMAX, OpKind.GELU)} == {
        "ivit"
    }
    logits = logits_of(graph, digits_pixels)
    assert (logits.argmax(axis=1) == digits_logits.argmax(axis=1)).mean() > 0.9


@pytest.mark.parametrize("variant", VARIANTS)
def test_codes_do_not_depend_on_the_batch(variant: str) -> None:
    graph, pictures = quantized(variant), pixels(8).numpy()
    reference = IntegerReference(graph)
    together = reference(pictures)
    alone = np.concatenate([reference(pictures[i : i + 1]) for i in range(8)])
    assert together.dtype == np.int64
    np.testing.assert_array_equal(alone, together)
    assert len(np.unique(together)) > 20


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_against_simulation(variant: str) -> None:
    graph, pictures = quantized(variant), pixels(8)
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    assert lowest_cosine(logits_of(graph, pictures.numpy()), simulated) > 0.99


def test_results_stay_in_the_quantizer_s_range(digits_graph: Graph) -> None:
    out = digits_graph.nodes[digits_graph.output].out
    assert out is not None
    for value in (0, 255):
        logits = IntegerReference(digits_graph)(np.full((1, 3, 32, 32), value, np.uint8))
        assert out.qmin <= logits.min() and logits.max() <= out.qmax


@pytest.mark.parametrize(
    "op", [OpKind.LAYER_NORM, OpKind.GELU, OpKind.ADD, OpKind.EXP, OpKind.NORMALIZED_MATMUL]
)
def test_a_missing_quantizer_is_an_error(op: OpKind) -> None:
    graph = copy.deepcopy(quantized("class_token"))
    node = next(node for node in graph if node.op is op)
    node.out = None
    with pytest.raises(VitqError, match=rf"{node.name} \({op}\) has no quantizer on its result"):
        IntegerReference(graph)(pixels(1).numpy())


def test_an_accumulator_where_codes_are_needed_is_an_error() -> None:
    graph = copy.deepcopy(quantized("class_token"))
    fc1 = next(graph.operand(node) for node in graph if node.op is OpKind.GELU)
    fc1.out = None
    with pytest.raises(VitqError, match="a scale for each channel"):
        IntegerReference(graph)(pixels(1).numpy())


def test_a_concatenation_of_two_scales_is_an_error() -> None:
    graph = copy.deepcopy(quantized("class_token"))
    concat = next(node for node in graph if node.op is OpKind.CONCAT)
    source = graph.operand(concat, 1)
    while source.out is None:
        source = graph.operand(source)
    source.out = QuantParams.per_tensor(0.5, 0, *INT16)
    with pytest.raises(VitqError, match="inputs of a concatenation have different scales"):
        IntegerReference(graph)(pixels(1).numpy())


def test_real_deit_tiny(real_data: Path) -> None:
    model = load_model("deit_tiny_patch16_224", real_data / "deit_tiny_patch16_224.safetensors")
    prep, folder = model.preprocessing, real_data / "imagenet300"
    calibration = load_pictures(str(folder / "calib"), prep, 8, "calibration")
    pictures = load_pictures(str(folder / "eval"), prep, 16, "evaluation").pixels
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (prep.mean, prep.std))
    with torch.inference_mode():
        expected = model.module((torch.from_numpy(pictures).float() / 255 - mean) / std).numpy()
    graph = quantize_graph(
        trace(model.module, prep.input_shape),
        torch.from_numpy(calibration.pixels),
        Recipe(),
        get_method("repq"),
        prep.mean,
        prep.std,
    )
    logits = np.concatenate([logits_of(graph, pictures[i : i + 4]) for i in range(0, 16, 4)])
    products = (logits * expected).sum(axis=1)
    cosine = products / np.linalg.norm(logits, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.mean() >= 0.97
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.8
