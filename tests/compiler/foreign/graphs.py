"""Small ONNX files, node by node, as other tools write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, PATCH, CHANNELS, WIDTH = 4, 2, 3, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Pictures = tuple[str, Sequence[Any], int]
NCHW: Pictures = ("x", [1, CHANNELS, SIDE, SIDE], TensorProto.FLOAT)


class Body:
    """Collects nodes and constants; each method returns the name of what it computes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: str | None = None) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        array = np.asarray(value, dtype) if dtype else np.asarray(value)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node called after its kind and place."""
        name = f"/block/{kind}_{len(self.nodes)}"
        out = f"t{len(self.nodes)}"
        node = helper.make_node(kind, list(inputs), [out], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def quantize(
        self, x: str, scale: Any = 1 / 64, zero: Any = 0, dtype: str = "int8", **more: Any
    ) -> str:
        """QuantizeLinear and DequantizeLinear."""
        step, point = self.const(scale, "float32"), self.const(zero, dtype)
        codes = self.op("QuantizeLinear", x, step, point, **more)
        return self.op("DequantizeLinear", codes, step, point, **more)

    def codes(self, array: Any, scale: Any = 1 / 64, zero: Any = 0, **more: Any) -> str:
        """Dequantized constant codes."""
        array = np.asarray(array)
        step, point = self.const(scale, "float32"), self.const(zero, str(array.dtype))
        return self.op("DequantizeLinear", self.const(array), step, point, **more)

    def patches(self, x: str, weight: str) -> str:
        """The patch embedding, quantized: (1, tokens, WIDTH)."""
        y = self.op("Conv", x, weight, kernel_shape=[PATCH] * 2, strides=[PATCH] * 2)
        y = self.quantize(y, 1 / 32)
        y = self.op("Reshape", y, self.const([0, WIDTH, -1], "int64"))
        return self.op("Transpose", y, perm=[0, 2, 1])

    def save(
        self,
        path: Path,
        result: str,
        shape: Sequence[Any] = ("n", "t", "c"),
        pictures: Pictures = NCHW,
        opset: int = 21,
        dtype: int = TensorProto.FLOAT,
        results: Sequence[str] = (),
    ) -> Path:
        """Write the file."""
        name, sizes, kind = pictures
        outputs = [helper.make_tensor_value_info(r, dtype, shape) for r in (result, *results)]
        inputs = [helper.make_tensor_value_info(name, kind, sizes)]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.constants)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path


def weights(seed: int = 0) -> Any:
    """Float weights of the patch embedding."""
    shape = (WIDTH, CHANNELS, PATCH, PATCH)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) / 4


def plain(path: Path, pictures: Pictures = NCHW, **options: Any) -> Path:
    """A file that is taken: patches, quantized."""
    body = Body()
    x = body.quantize(pictures[0])
    codes = np.rint(weights() * 64).astype(np.int8)
    return body.save(
        path,
        body.quantize(body.patches(x, body.codes(codes)), 1 / 16),
        pictures=pictures,
        **options,
    )
