"""Float ONNX files to read: written by torch's exporters, or of a few nodes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.quantization.vits import SHAPE


def legacy(model: nn.Module, path: Path, opset: int, fixed: int = 0) -> Path:
    """Write a file with torch's older exporter; for `fixed` pictures, or any number."""
    axes = None if fixed else {"x": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (torch.zeros(fixed or 1, *SHAPE),), path, dynamo=False,
            opset_version=opset, input_names=["x"], dynamic_axes=axes,
        )  # fmt: skip
    return path


def dynamo(model: nn.Module, path: Path, opset: int) -> Path:
    """Write a file with torch's newer exporter, for any number of pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (torch.zeros(2, *SHAPE),), path, dynamo=True, opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
    return path


def small_file(
    nodes: list[Any], constants: dict[str, Any], shape: tuple[Any, ...] = ("n", *SHAPE),
    result: str = "y", kind: int = TensorProto.FLOAT, rank: int = 2, opset: int = 20,
) -> bytes:  # fmt: skip
    """Return a file of a few nodes."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, list("abcd"[:rank]))],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def random(*shape: int) -> Any:
    """Return a constant."""
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def head(*behind: Any) -> list[Any]:
    """Return patches of 16 channels, as rows (N, 16, 16), and what is behind them."""
    return [
        helper.make_node("Conv", ["x", "w"], ["p"], strides=[8, 8]),
        helper.make_node("Reshape", ["p", "rows"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        *behind,
    ]


PATCHES = {"w": random(16, 3, 8, 8), "rows": np.array([0, 16, -1])}


def pieces() -> bytes:
    """Return a file with computed shapes, a norm, a softmax and GELU in pieces."""
    constants = {
        **PATCHES, "zero": np.int64(0), "last": np.array([16, 16]), "two": np.float32(2),
        "eps": np.float32(1e-5), "gamma": random(16), "root": np.float32(1.41421356),
        "one": np.float32(1), "half": np.float32(0.5), "axes": np.array([1]), "fc": random(16, 5),
        "first": np.array([0]), "end": np.array([-1]),
    }  # fmt: skip
    node = helper.make_node
    nodes = head(
        node("Shape", ["p"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Unsqueeze", ["b", "first"], ["b1"]),
        node("Concat", ["b1", "last"], ["wanted"], axis=0),
        node("Reshape", ["t", "wanted"], ["u"]),
        node("ReduceMean", ["u", "end"], ["m"]),
        node("Sub", ["u", "m"], ["c"]),
        node("Pow", ["c", "two"], ["q"]),
        node("ReduceMean", ["q", "end"], ["v"]),
        node("Add", ["v", "eps"], ["ve"]),
        node("Sqrt", ["ve"], ["d"]),
        node("Div", ["c", "d"], ["n"]),
        node("Mul", ["n", "gamma"], ["g"]),
        node("Transpose", ["g"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["g", "k"], ["scores"]),
        node("Softmax", ["scores"], ["a"], axis=-1),
        node("MatMul", ["a", "g"], ["o"]),
        node("Div", ["o", "root"], ["e0"]),
        node("Erf", ["e0"], ["e1"]),
        node("Add", ["e1", "one"], ["e2"]),
        node("Mul", ["o", "e2"], ["e3"]),
        node("Mul", ["e3", "half"], ["e4"]),
        node("ReduceMean", ["e4", "axes"], ["h"], keepdims=0),
        node("MatMul", ["h", "fc"], ["y"]),
    )
    return small_file(nodes, constants)
