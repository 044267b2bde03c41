"""What an ONNX graph holds, looked up once: operators, readers, constants, element types."""

from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray

OWN_DOMAINS = ("", "ai.onnx")
QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
LAYOUT = frozenset(
    "Cast Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Transpose "
    "Unsqueeze".split()
)
"""Operators that only move elements."""


def op_of(node: Any) -> str:
    """Return an operator's name; with its domain where that is not ONNX's own."""
    return node.op_type if node.domain in OWN_DOMAINS else f"{node.domain}.{node.op_type}"


def label(node: Any) -> str:
    """Return what a message calls a node: its name, or what it computes."""
    return node.name or (node.output[0] if node.output else op_of(node))


class Facts:
    """Questions about one model.

    Args:
        model: an ``onnx.ModelProto``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.graph
        self.nodes: list[Any] = list(model.graph.node)

    @cached_property
    def ops(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(op_of(node) for node in self.nodes)

    @cached_property
    def opset(self) -> int:
        """The version of ONNX's own operators; 1 where the file does not say."""
        found = [o.version for o in self.model.opset_import if o.domain in OWN_DOMAINS]
        return int(found[0]) if found else 1

    @cached_property
    def made(self) -> dict[str, Any]:
        """Tensor -> the node that computes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[Any]]:
        """Tensor -> the nodes that read it."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Tensor -> its ``TensorProto``."""
        found = {tensor.name: tensor for tensor in self.graph.initializer}
        for node in self.nodes:
            value = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
            if node.op_type == "Constant" and value and node.output:
                found[node.output[0]] = value[0]
        return found

    def array(self, name: str) -> FloatArray | IntArray | None:
        """Read a constant; None for anything else, and for one whose fields contradict."""
        import onnx

        tensor = self.constants.get(name)
        if tensor is None:
            return None
        try:
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError):
            return None

    def all_of(self, *ops: str) -> list[Any]:
        """Return the nodes of some operators."""
        return [node for node in self.nodes if op_of(node) in ops]

    def behind(self, node: Any) -> list[Any]:
        """Return what reads a node's results, through operators that only move elements."""
        found, todo, seen = [], list(node.output), set(node.output)
        while todo:
            for reader in self.readers.get(todo.pop(), []):
                if reader.op_type not in LAYOUT:
                    found.append(reader)
                    continue
                fresh = [name for name in reader.output if name not in seen]
                seen.update(fresh)
                todo += fresh
        return found

    def is_quantized(self, node: Any) -> bool:
        """Whether all that reads a node's results are quantizers, or nothing does."""
        return all(reader.op_type == QUANTIZE for reader in self.behind(node))

    def before(self, name: str) -> Any:
        """Return the node that computes a tensor, before quantizers and layout; None for none."""
        node = self.made.get(name)
        for _ in range(len(self.nodes)):
            if node is None or node.op_type not in (*LAYOUT, QUANTIZE, DEQUANTIZE):
                break
            node = self.made.get(node.input[0]) if node.input else None
        return node
