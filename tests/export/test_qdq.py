"""The exported file: valid, complete, deterministic, and the same function as the simulation."""

import copy
import errno
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from tests.quantization.vits import VARIANTS, pixels, quantized
from vitq.export.parity import compare, cosine, onnx_runner, run_onnx
from vitq.export.qdq import OPSET, save_onnx, to_onnx
from vitq.export.quantizers import INPUT_NAME
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference


@pytest.fixture(scope="module")
def model(digits_graph: Graph) -> onnx.ModelProto:
    """The embedded model, exported."""
    return to_onnx(digits_graph, {"model": "digits_vit", "nonlinear": "vitq"})


@pytest.fixture(scope="module")
def path(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    file = tmp_path_factory.mktemp("export") / "network.onnx"
    save_onnx(model, file)
    return file


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Name -> value."""
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def test_the_checker_accepts_the_file(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)


def test_opset_and_producer(model: onnx.ModelProto) -> None:
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert OPSET == 21 and model.producer_name == "vitq"
    assert {node.domain for node in model.graph.node} == {""}


def describe(info: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
    """Name, type and dimensions."""
    kind = info.type.tensor_type
    return info.name, kind.elem_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim]


def test_input_is_raw_pixels_with_a_dynamic_batch(model: onnx.ModelProto) -> None:
    (source,), (target,) = model.graph.input, model.graph.output
    assert describe(source) == (INPUT_NAME, TensorProto.UINT8, ["batch", 3, 32, 32])
    assert describe(target) == ("logits", TensorProto.FLOAT, ["batch", 10])


def test_pixels_are_dequantized_by_255(model: onnx.ModelProto) -> None:
    values = initializers(model)
    readers = [node for node in model.graph.node if INPUT_NAME in node.input]
    (dequantize,) = (node for node in readers if node.op_type == "DequantizeLinear")
    assert {node.op_type for node in readers} == {"DequantizeLinear", "Shape"}
    assert values[dequantize.input[1]] == np.float32(1 / 255)
    assert values[dequantize.input[2]] == 0 and values[dequantize.input[2]].dtype == np.uint8


def test_metadata(model: onnx.ModelProto, path: Path) -> None:
    for proto in (model, onnx.load(path)):
        found = {item.key: item.value for item in proto.metadata_props}
        assert found == {"vitq.model": "digits_vit", "vitq.nonlinear": "vitq"}


def weights(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Initializers behind a DequantizeLinear -> (codes, scale, axis)."""
    values = initializers(model)
    return {
        node.input[0]: (
            values[node.input[0]],
            values[node.input[1]],
            next((a.i for a in node.attribute if a.name == "axis"), -1),
        )
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in values
    }


def test_every_weight_is_int8_and_every_bias_int32(model: onnx.ModelProto) -> None:
    producer = {node.output[0]: node for node in model.graph.node}
    found = weights(model)
    products = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul"):
            continue
        behind = producer[node.input[1]]
        if behind.op_type == "Transpose":
            behind = producer[behind.input[0]]
        if behind.op_type != "DequantizeLinear" or behind.input[0] not in found:
            continue
        codes, scale, axis = found[behind.input[0]]
        assert codes.dtype == np.int8 and axis == 0 and scale.shape == codes.shape[:1]
        products += 1
    assert products == 1 + 4 * 4 + 1
    types = Counter(str(codes.dtype) for codes, _, _ in found.values())
    assert types == {"int8": products, "int32": products, "int16": 2}


def test_no_float_tensor_but_scales_norms_and_factors(model: onnx.ModelProto) -> None:
    users: dict[str, set[tuple[str, int]]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            users.setdefault(name, set()).add((node.op_type, index))
    allowed = {
        ("QuantizeLinear", 1),
        ("DequantizeLinear", 1),
        ("LayerNormalization", 1),
        ("LayerNormalization", 2),
        ("Mul", 1),
    }
    for name, value in initializers(model).items():
        if value.dtype == np.float32:
            assert users[name] <= allowed, name


def test_quantizers_of_the_residual_stream_are_int16(model: onnx.ModelProto) -> None:
    values, producer = initializers(model), {n.output[0]: n for n in model.graph.node}
    types = {
        producer[node.input[0]].op_type: values[node.input[2]].dtype
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    for op in ("Concat", "Add", "Conv"):
        if op in types:
            assert types[op] == np.int16
    assert types["LayerNormalization"] == types["Gelu"] == np.int8
    assert types["Exp"] == np.uint8


def test_weights_are_the_graph_s(model: onnx.ModelProto, digits_graph: Graph) -> None:
    values = initializers(model)
    for node in digits_graph:
        if node.op in (OpKind.LINEAR, OpKind.CONV2D):
            for role in ("weight", "bias"):
                np.testing.assert_array_equal(
                    values[node.params[role]], digits_graph.tensor(node, role)
                )
        if node.op is OpKind.LAYER_NORM:
            (norm,) = (n for n in model.graph.node if n.output[0] == node.name)
            eps = {a.name: a.f for a in norm.attribute}["epsilon"]
            assert eps == np.float32(node.attrs["eps"])


@pytest.mark.parametrize("batch", [1, 3])
def test_digits_in_onnxruntime(
    batch: int, path: Path, digits_graph: Graph, digits_pixels: UInt8Array
) -> None:
    exported = run_onnx(path, digits_pixels[:24], batch)
    pictures = torch.from_numpy(digits_pixels[:24])
    simulated = GraphModule(digits_graph, simulate=True)(pictures).numpy()
    assert cosine(simulated, exported).min() > 0.9995
    parity = compare(simulated, exported)
    assert parity.argmax_agreement == 1.0 and parity.max_abs_difference < 0.5
    reference = IntegerReference(digits_graph)
    integer = reference(digits_pixels[:24]) * reference.output_scale
    assert cosine(integer, exported).min() > 0.999


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_in_onnxruntime(variant: str, tmp_path: Path) -> None:
    graph, pictures = quantized(variant), pixels(4)
    save_onnx(to_onnx(graph, {}), tmp_path / "network.onnx")
    run = onnx_runner(tmp_path / "network.onnx")
    simulated = GraphModule(graph, simulate=True)(pictures).numpy()
    for part in (slice(0, 1), slice(1, 4)):
        exported = run(pictures.numpy()[part])
        assert cosine(simulated[part], exported).min() > 0.998


def test_layout_between_quantized_values_has_a_pair_behind_it(model: onnx.ModelProto) -> None:
    readers: dict[str, list[onnx.NodeProto]] = {}
    producer = {}
    for node in model.graph.node:
        producer[node.output[0]] = node
        for name in node.input:
            readers.setdefault(name, []).append(node)
    checked = 0
    for node in model.graph.node:
        if node.op_type not in ("Reshape", "Transpose", "Gather", "Expand"):
            continue
        behind = producer.get(node.input[0])
        if behind is not None and behind.op_type == "DequantizeLinear":
            if behind.input[0] in initializers(model):
                continue  # a weight, or the class token
            after = readers[node.output[0]]
            assert [reader.op_type for reader in after] == ["QuantizeLinear"], node.name
            values = initializers(model)
            for index in (1, 2):
                assert values[after[0].input[index]] == values[behind.input[index]]
            checked += 1
    assert checked >= 4


def clips(model: onnx.ModelProto) -> set[tuple[int, int, str]]:
    """(low, high, type) of every Clip."""
    values = initializers(model)
    return {
        (int(values[n.input[1]]), int(values[n.input[2]]), str(values[n.input[1]].dtype))
        for n in model.graph.node
        if n.op_type == "Clip"
    }


def test_narrow_ranges_are_a_clip_on_codes(model: onnx.ModelProto) -> None:
    assert clips(model) == set()
    narrow = to_onnx(quantized("class_token", "w4a4"), {})
    assert clips(narrow) == {(-8, 7, "int8")}
    ops = {node.output[0]: node.op_type for node in narrow.graph.node}
    for node in narrow.graph.node:
        if node.op_type == "Clip":
            assert ops[node.input[0]] == "QuantizeLinear"
    limits = [np.abs(v).max() for v, _, _ in weights(narrow).values() if v.dtype == np.int8]
    assert set(limits) == {8, 127}  # all codes of 4 bits; the first and last layer keep 8


def test_normalization_is_deferred(model: onnx.ModelProto) -> None:
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["Softmax"] == 0
    assert ops["Exp"] == ops["ReduceMax"] == ops["ReduceSum"] == ops["Div"] == ops["Sub"] == 4


def test_names_are_unique(model: onnx.ModelProto) -> None:
    names = [name for node in model.graph.node for name in node.output]
    names += [item.name for item in model.graph.initializer]
    names += [item.name for item in model.graph.input]
    assert len(names) == len(set(names))
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_bytes_are_deterministic(digits_graph: Graph, model: onnx.ModelProto, path: Path) -> None:
    again = to_onnx(copy.deepcopy(digits_graph), {"model": "digits_vit", "nonlinear": "vitq"})
    assert again.SerializeToString() == model.SerializeToString() == path.read_bytes()


def test_nothing_half_written_stays(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_onnx(model, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_an_onnx_form_is_refused() -> None:
    graph = copy.deepcopy(quantized("class_token"))
    last = graph.nodes[graph.output]
    graph.nodes["stray"] = Node("stray", OpKind.CHANNEL_SCALE, (last.name,), last.shape, 0)
    with pytest.raises(VitqError, match="stray: operator channel_scale cannot be written"):
        to_onnx(graph, {})
