"""Float ONNX files become the graph that their PyTorch model becomes."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from tests.compiler.foreign.network.files import (
    PATCHES,
    dynamo,
    head,
    legacy,
    pieces,
    random,
    small_file,
)
from tests.quantization.vits import SHAPE, lively, pixels, quantize, unfused, vit
from vitq.compiler.foreign.network.network import Network
from vitq.compiler.foreign.network.parity import check_network
from vitq.compiler.foreign.network.reading import files_of, read_network
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.reference import IntegerReference

WRITERS: dict[str, Callable[[Path], Path]] = {
    "opset 11, everything in pieces": lambda path: legacy(unfused(), path, 11),
    "opset 14, for one picture": lambda path: legacy(vit(), path, 14, fixed=1),
    "opset 17, for two pictures": lambda path: legacy(vit(), path, 17, fixed=2),
    "opset 18, newer exporter": lambda path: dynamo(vit(), path, 18),
    "opset 23, newer exporter": lambda path: dynamo(vit(), path, 23),
}


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    """Return integers of the PyTorch model by each method."""
    x = pixels(8, seed=1).numpy()
    return {m: IntegerReference(quantize(trace(vit(), SHAPE), method=m))(x) for m in METHODS}


METHODS = ("repq", "minmax")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_gives_the_integers_of_the_module(
    writer: str, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    path = WRITERS[writer](tmp_path / "m.onnx")
    x = pixels(8, seed=1)
    network = read_network(path)
    check_network(network, path, torch.randn(3, *SHAPE))
    for method in METHODS:
        found = IntegerReference(quantize(trace(network, SHAPE), method=method))(x.numpy())
        np.testing.assert_array_equal(found, wanted[method])


def test_steps_are_called_as_the_modules_they_come_from(tmp_path: Path) -> None:
    for path in (legacy(vit(), tmp_path / "a.onnx", 17), dynamo(vit(), tmp_path / "b.onnx", 20)):
        modules = {node.module for node in trace(read_network(path), SHAPE)}
        assert any(name.startswith("blocks.1.attn.qkv.") for name in modules), modules
        assert any(name.startswith("blocks.0.mlp.act.") for name in modules), modules


def test_weights_of_16_bits_and_beside_the_file(tmp_path: Path) -> None:
    path = legacy(vit(), tmp_path / "m.onnx", 17)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size > 64:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
            wide = helper.make_node("Cast", [tensor.name], [f"{tensor.name}.wide"], to=1)
            for node in model.graph.node:
                for i, name in enumerate(node.input):
                    node.input[i] = f"{name}.wide" if name == tensor.name else name
            model.graph.node.insert(0, wide)
    beside = tmp_path / "narrow.onnx"
    onnx.save(model, beside, save_as_external_data=True, location="w.bin", size_threshold=64)
    assert files_of(beside) == [beside, tmp_path / "w.bin"]
    x = torch.randn(2, *SHAPE)
    network = read_network(beside)
    check_network(network, beside, x)
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())


class Written(nn.Module):
    """What exporters write in pieces, and shapes that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 16, 8, 8)
        self.fc, self.last = nn.Linear(16, 16), nn.Linear(16, 5)
        self.positions = nn.Parameter(torch.randn(1, 16, 3, 3))
        self.kind = "tanh"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Resample positions, then a function in pieces."""
        x = self.proj(x)
        x = x + F.interpolate(self.positions, x.shape[-2:], mode="bicubic")
        x = x.flatten(2).transpose(1, 2)
        y = self.fc(x)
        if self.kind == "tanh":
            y = 0.5 * y * (1 + torch.tanh(0.7978845608 * (y + 0.044715 * torch.pow(y, 3))))
        elif self.kind == "erf":
            y = y * 0.5 * (1 + torch.erf(y / 1.4142135))
        elif self.kind == "mish":
            y = y * torch.tanh(F.softplus(y))
        elif self.kind == "quick_gelu":
            y = y * torch.sigmoid(1.702 * y)
        elif self.kind == "hardswish":
            y = y * F.relu6(y + 3) / 6
        else:
            y = torch.tanh(y) * y
        return self.last(y.mean(1))


KINDS = {"tanh": "gelu", "erf": "gelu", "mish": "mish", "quick_gelu": "quick_gelu"}


@pytest.mark.parametrize("kind", KINDS)
def test_functions_in_pieces_are_read_by_what_they_compute(kind: str, tmp_path: Path) -> None:
    model = lively(Written())
    model.kind = kind  # type: ignore[assignment]
    path = legacy(model, tmp_path / "m.onnx", 14)
    network = read_network(path)
    check_network(network, path, torch.randn(2, *SHAPE))
    for module in (model, network):
        nodes = list(trace(module, SHAPE))
        names = [n.attrs.get("function", str(n.op)) for n in nodes]
        assert names.count(KINDS[kind]) == 1
        assert not {"tanh", "sigmoid", "softplus", "multiply"} & set(names)


def test_what_only_looks_like_a_function_stays_in_pieces() -> None:
    model = lively(Written())
    model.kind = "other"  # type: ignore[assignment]
    names = [n.attrs.get("function", str(n.op)) for n in trace(model, SHAPE)]
    assert "tanh" in names and "multiply" in names


def read(content: bytes, folder: Path) -> tuple[Network, Path]:
    """Write a file and read it."""
    path = folder / "m.onnx"
    path.write_bytes(content)
    return read_network(path), path


def test_everything_in_pieces(tmp_path: Path) -> None:
    network, path = read(pieces(), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    operators = [str(node.op) for node in trace(network, SHAPE)]
    assert [operators.count(op) for op in ("layer_norm", "softmax", "gelu")] == [1, 1, 1]


def test_onnxruntimes_fused_operators(tmp_path: Path) -> None:
    """Attention, a norm of a sum (which is read, too), biased GELU, and a linear layer."""
    constants = {
        **PATCHES, "qkv": random(16, 48), "qkv_bias": random(48), "gamma": random(16),
        "beta": random(16), "bias": random(16), "fc": random(16, 5), "fc_bias": random(5),
        "more": random(16), "axes": np.array([1]),
    }  # fmt: skip
    contrib = {"domain": "com.microsoft"}
    nodes = head(
        helper.make_node("Attention", ["t", "qkv", "qkv_bias"], ["a"], num_heads=4, **contrib),
        helper.make_node("SkipLayerNormalization", ["a", "t", "gamma", "beta", "bias"],
                         ["s", "", "", "sum"], epsilon=1e-5, **contrib),
        helper.make_node("BiasGelu", ["s", "more"], ["g"], **contrib),
        helper.make_node("MultiHeadAttention", ["g", "s", "sum"], ["m"], num_heads=2, **contrib),
        helper.make_node("Add", ["m", "sum"], ["e"]),
        helper.make_node("ReduceMean", ["e", "axes"], ["h"], keepdims=0),
        helper.make_node("Gemm", ["h", "fc", "fc_bias"], ["y"]),
    )  # fmt: skip
    network, path = read(small_file(nodes, constants), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    assert quantize(trace(network, SHAPE)).outputs


def test_weights_that_lie_in_the_file_as_codes(tmp_path: Path) -> None:
    constants = {
        **PATCHES, "codes": np.arange(-40, 40, dtype=np.int8).reshape(16, 5),
        "scale": np.abs(random(5)), "zero": np.arange(5, dtype=np.int8), "axes": np.array([1]),
        "real": random(5), "step": np.float32(0.01), "middle": np.uint8(100),
    }  # fmt: skip
    nodes = head(
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["wide"], axis=1),
        helper.make_node("ReduceMean", ["t", "axes"], ["h"], keepdims=0),
        helper.make_node("MatMul", ["h", "wide"], ["m"]),
        helper.make_node("QuantizeLinear", ["real", "step", "middle"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "middle"], ["b"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    )
    network, path = read(small_file(nodes, constants), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    assert {step.op for step in network.modules() if hasattr(step, "op")} == {
        "Conv", "Reshape", "Transpose", "ReduceMean", "MatMul", "Add",
    }  # fmt: skip


def test_a_softmax_at_the_end_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = head(
        helper.make_node("ReduceMean", ["t", "axes"], ["h"], keepdims=0),
        helper.make_node("Softmax", ["h"], ["y"], name="the_end"),
    )
    with caplog.at_level(logging.INFO):
        network, path = read(small_file(nodes, {**PATCHES, "axes": np.array([1])}), tmp_path)
    assert network.output_names == ("h",)
    assert "the file's last operator, the_end (Softmax), is left out" in caplog.text
    check_network(network, path, torch.randn(2, *SHAPE))


def test_pictures_with_channels_last(tmp_path: Path) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]), *head()]
    nodes[1].input[0] = "c"
    nodes.append(helper.make_node("ReduceMean", ["t", "axes"], ["y"], keepdims=0))
    content = small_file(nodes, {**PATCHES, "axes": np.array([1])}, ("n", 32, 32, 3))
    network, path = read(content, tmp_path)
    assert (network.image_size, network.in_chans) == ((32, 32), 3)
    check_network(network, path, torch.randn(2, *SHAPE))
    operators = [str(node.op) for node in quantize(trace(network, SHAPE))]
    assert operators.count("permute") <= 1


def test_a_batch_that_lies_inside_is_refused(tmp_path: Path) -> None:
    """(tokens, 1, channels), where a fixed batch of 1 looks like any other 1."""
    nodes = head(
        helper.make_node("Transpose", ["t"], ["u"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["u", "heads"], ["v"]),
        helper.make_node("ReduceMean", ["v", "axes"], ["y"], keepdims=0),
    )
    constants = {**PATCHES, "heads": np.array([16, 4, 4]), "axes": np.array([0])}
    network, path = read(small_file(nodes, constants, (1, *SHAPE)), tmp_path)
    with pytest.raises(VitqError, match="made for a batch of 1: export it with a dynamic one"):
        check_network(network, path, torch.randn(2, *SHAPE))


def test_a_difference_from_onnxruntime_is_refused(tmp_path: Path) -> None:
    path = legacy(vit(), tmp_path / "m.onnx", 17)
    network = read_network(path)
    with torch.no_grad():
        next(iter(network.buffers())).mul_(1.5)
    with pytest.raises(VitqError, match=r"differs by .* from what onnxruntime computes .*report"):
        check_network(network, path, torch.randn(2, *SHAPE))


def test_what_onnxruntime_does_not_run_is_said(tmp_path: Path) -> None:
    path = legacy(vit(), tmp_path / "m.onnx", 17)
    network = read_network(path)
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(VitqError, match="onnxruntime does not run it: "):
        check_network(network, path, torch.randn(2, *SHAPE))


BAD: dict[str, tuple[str, bytes]] = {
    "integers": (
        "its input x holds integers",
        small_file(head(), PATCHES, kind=TensorProto.INT64, result="t", rank=3),
    ),
    "rows": (
        "its input x has 2 dimensions: it must be pictures",
        small_file([helper.make_node("Relu", ["x"], ["y"])], {}, ("n", 4)),
    ),
    "unknown": (
        "operators that are not supported: LRN (x1) (at y): build the model without them",
        small_file([helper.make_node("LRN", ["x"], ["y"], size=3)], {}, rank=4),
    ),
    "sides": (
        "pictures of 3x99999x32: at most",
        small_file(head(), PATCHES, ("n", 3, 99_999, 32), result="t", rank=3),
    ),
    "texts": (
        "the tensor c cannot be read: ",
        small_file([helper.make_node("Add", ["x", "c"], ["y"])], {"c": np.array(["a"])}, rank=4),
    ),
    "blocks": (
        "node y (DequantizeLinear): scales of blocks",
        small_file(
            [
                helper.make_node("DequantizeLinear", ["w", "s"], ["y"], block_size=2),
                helper.make_node("Relu", ["x"], ["z"]),
            ],
            {"w": np.zeros((4, 4), np.int8), "s": np.ones((2, 4), np.float32)},
            opset=21,
        ),
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_float_file_is_refused(kind: str, tmp_path: Path) -> None:
    message, content = BAD[kind]
    with pytest.raises(VitqError) as error:
        read(content, tmp_path)
    assert message in str(error.value) and "m.onnx: " in str(error.value)


def test_rows_that_might_be_hidden_are_not(tmp_path: Path) -> None:
    """Exporters repeat a mask that shows all for each picture, and replace NaN behind softmax."""
    shape = {"ones": np.array([1, 1]), "zero": np.float32(0), "shown": np.ones((1, 1, 1), bool)}
    nodes = head(
        helper.make_node("Shape", ["t"], ["sizes"], end=1),
        helper.make_node("Concat", ["sizes", "ones"], ["wanted"], axis=0),
        helper.make_node("Expand", ["shown", "wanted"], ["mask"]),
        helper.make_node("Where", ["mask", "t", "zero"], ["u"]),
        helper.make_node("Softmax", ["u"], ["s"]),
        helper.make_node("IsNaN", ["s"], ["bad"]),
        helper.make_node("Where", ["bad", "zero", "s"], ["y"]),
    )
    network, path = read(small_file(nodes, {**PATCHES, **shape}, rank=3), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    assert [str(n.op) for n in trace(network, SHAPE)].count("softmax") == 1


def test_shapes_that_are_computed(tmp_path: Path) -> None:
    """In more ways than exporters know: (N, 16, 16) -> (N, 256), its tokens in their own order."""
    node = helper.make_node
    constants = {
        **PATCHES, "one": np.array([1]), "three": np.array([3]), "zero": np.array([0]),
        "five": np.array([5]), "real": np.float32(1), "start": np.int64(0), "step": np.int64(1),
        "ends": np.array(16),
    }  # fmt: skip
    nodes = head(
        node("Shape", ["t"], ["s"]),
        node("Slice", ["s", "one", "three"], ["tail"]),
        node("ReduceProd", ["tail"], ["flat"], keepdims=1),
        node("Mod", ["flat", "five"], ["rest"]),
        node("Equal", ["rest", "one"], ["is_one"]),
        node("Less", ["flat", "five"], ["is_small"]),
        node("Not", ["is_small"], ["is_large"]),
        node("And", ["is_one", "is_large"], ["both"]),
        node("Or", ["both", "is_small"], ["either"]),
        node("Where", ["either", "flat", "one"], ["chosen"]),
        node("CastLike", ["chosen", "real"], ["wide"]),
        node("Sqrt", ["wide"], ["side"]),
        node("Reciprocal", ["side"], ["part"]),
        node("Mul", ["part", "wide"], ["again"]),
        node("Ceil", ["again"], ["whole"]),
        node("Cast", ["whole"], ["narrow"], to=7),
        node("Mul", ["narrow", "narrow"], ["square"]),
        node("Concat", ["zero", "square"], ["wanted"], axis=0),
        node("Range", ["start", "ends", "step"], ["order"]),
        node("Gather", ["t", "order"], ["g"], axis=1),
        node("Unsqueeze", ["g", "one"], ["u"]),
        node("Squeeze", ["u", "one"], ["v"]),
        node("Size", ["order"], ["count"]),
        node("Unsqueeze", ["count", "zero"], ["counts"]),
        node("ConstantOfShape", ["counts"], ["nothing"]),
        node("Add", ["v", "nothing"], ["w2"]),
        node("Reshape", ["w2", "wanted"], ["y"]),
    )
    network, path = read(small_file(nodes, constants), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    operators = {str(n.op) for n in trace(network, SHAPE)}
    assert operators <= {"input", "conv2d", "reshape", "permute", "take", "add", "constant"}


def test_attention_of_newer_opsets(tmp_path: Path) -> None:
    """Heads that lie beside each other in the channels."""
    nodes = head(
        helper.make_node("Attention", ["t", "t", "t"], ["y"], q_num_heads=2, kv_num_heads=2)
    )
    network, path = read(small_file(nodes, PATCHES, rank=3, opset=23), tmp_path)
    check_network(network, path, torch.randn(2, *SHAPE))
    assert "softmax" in {str(n.op) for n in trace(network, SHAPE)}


def test_sizes_that_contradict_name_the_node(tmp_path: Path) -> None:
    nodes = head(helper.make_node("MatMul", ["t", "fc"], ["y"], name="the_node"))
    network, _ = read(small_file(nodes, {**PATCHES, "fc": random(9, 5)}, rank=3), tmp_path)
    with pytest.raises(VitqError, match=r"node the_node \(MatMul\): RuntimeError: "):
        trace(network, SHAPE)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="cannot be read"):
        read_network(tmp_path / "none.onnx")
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with pytest.raises(VitqError, match="zip archive"):
        read(buffer.getvalue(), tmp_path)
