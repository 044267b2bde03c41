"""The network as plain data: what quantize writes, and export and the reference read.

A `Graph` is a list of nodes in execution order and a table of named tensors. It starts in float
(`quantization.graph.tracing` reads it from ``torch.export``), is rewritten by the stages of
`quantize` and ends quantized: nodes carry the parameters of their output (`Node.out`), tensors are
integer codes with their own parameters (`Graph.qparams`). It needs neither torch nor the model's
code again, and is stored as JSON and safetensors (`quantization.graph.artifact`).

Operators (`OpKind`), with x the first input:

    | operator | meaning |
    |---|---|
    | input | pixels (N, C, H, W); real value in [0, 1] |
    | constant | params value |
    | expand | constant, repeated along the batch axis |
    | conv2d | x (N, C, H, W), params weight (O, C, P, P), bias (O,); stride = kernel, unpadded |
    | depthwise | x (N, H, W, C), params weight (C, i, j), bias (C,); attrs of a `Geometry` [4] |
    | linear | x (..., K), params weight (O, K), bias (O,) |
    | matmul | a (..., M, K), b (..., K, N) |
    | add | a, b (broadcastable to a) |
    | scale | x * attrs.factor (> 0) |
    | channel_scale | x * params value, last axis (LayerScale; folded before quantizing) |
    | layer_norm | over the last axis; params gamma, beta; attrs eps |
    | softmax | over the last axis |
    | exp | exp(x - max(x)) over the last axis; attrs for log codes: [1] |
    | normalized_matmul | (p @ v) / sum(p) over p's last axis |
    | gelu | attrs approximate: none or tanh; attrs for twin ranges: [2] |
    | mean | over attrs.axis (dropped) |
    | max | over attrs.axis (dropped) |
    | argmax | class of the largest along attrs.axis (dropped), the lowest of equals; results only |
    | multiply | a * b (broadcastable to each other; either may be a constant) |
    | pointwise | attrs.function of each element; attrs.parameter where it has one [3] |
    | rms_norm | x / sqrt(mean(x^2) + eps) * gamma over the last axis; params gamma; attrs eps |
    | offset | x + params value (broadcastable to x), in accumulators of scores |
    | reshape, permute, select, slice, concat | layout |
    | take | layout: x along attrs.axis at attrs.indices (a list, repeats allowed) |
    | pad | layout: attrs.pads zeros [[before, after], ...], one pair for each axis |
    | requantize | x at other parameters (Node.out) |

    [1] log_steps, log_levels, log_zero (`quantization.plan.attention_codes`)
    [2] twin_shift, twin_split (`quantization.plan.twin_ranges`)
    [3] a name of `quantization.graph.functions`
    [4] `numerics.convolution.Geometry`: kernel, stride, before, after, dilation
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams, dequantize
from vitq.quantization.graph.outputs import OutputLayout


class OpKind(StrEnum):
    """What a node computes; the module docstring gives each one's meaning."""

    INPUT = "input"
    CONSTANT = "constant"
    EXPAND = "expand"
    CONV2D = "conv2d"
    DEPTHWISE = "depthwise"
    LINEAR = "linear"
    MATMUL = "matmul"
    ADD = "add"
    SCALE = "scale"
    CHANNEL_SCALE = "channel_scale"
    LAYER_NORM = "layer_norm"
    SOFTMAX = "softmax"
    EXP = "exp"
    NORMALIZED_MATMUL = "normalized_matmul"
    GELU = "gelu"
    MEAN = "mean"
    RESHAPE = "reshape"
    PERMUTE = "permute"
    SELECT = "select"
    SLICE = "slice"
    CONCAT = "concat"
    REQUANTIZE = "requantize"
    MAX = "max"
    ARGMAX = "argmax"
    MULTIPLY = "multiply"
    POINTWISE = "pointwise"
    RMS_NORM = "rms_norm"
    OFFSET = "offset"
    TAKE = "take"
    PAD = "pad"


LAYOUT_OPS = frozenset({
    OpKind.RESHAPE,
    OpKind.PERMUTE,
    OpKind.SELECT,
    OpKind.SLICE,
    OpKind.EXPAND,
    OpKind.TAKE,
    OpKind.PAD,
    OpKind.MAX,
})
"""Operators that move elements of one tensor and change none; a pad's zeros are real zeros."""

LAYER_OPS = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE, OpKind.LINEAR})
"""Operators with weights, one row for each output channel."""

ACCUMULATOR_OPS = frozenset({*LAYER_OPS, OpKind.MATMUL})
"""Operators whose integer result is an int32 accumulator until a quantizer follows."""


@dataclass
class Node:
    """One operator.

    Attributes:
        name: unique in the graph.
        op: what it computes.
        inputs: names of the nodes it reads.
        shape: of its result at batch 1.
        batch_axis: the dimension that grows with the batch (by that factor), None for constants.
        params: role -> key in `Graph.tensors`.
        attrs: JSON-able facts of the operator.
        out: parameters of its quantized result, None while it is float or an accumulator.
        module: name of the PyTorch module that computes it, empty if nobody says.
        source: ``file:line`` of that module's code; only while its model is at hand, not stored.
    """

    name: str
    op: OpKind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    batch_axis: int | None
    params: dict[str, str] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    out: QuantParams | None = None
    module: str = ""
    source: str = field(default="", compare=False)

    def shape_at(self, batch: int) -> tuple[int, ...]:
        """Return the result's shape at a batch size."""
        if self.batch_axis is None:
            return self.shape
        dims = list(self.shape)
        dims[self.batch_axis] *= batch
        return tuple(dims)


@dataclass
class Graph:
    """Nodes in execution order, tensors and the tensors' parameters.

    Attributes:
        nodes: name -> node; insertion order is execution order.
        outputs: name of a result -> node that holds it, in the model's order. A model that
            returns classes calls them `quantization.graph.outputs.LOGITS`.
        tensors: key -> float32 values, or integer codes where `qparams` has the key.
        qparams: key -> parameters of a quantized tensor.
    """

    nodes: dict[str, Node]
    outputs: dict[str, str]
    tensors: dict[str, FloatArray | IntArray]
    qparams: dict[str, QuantParams] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Node]:
        """Iterate over the nodes in execution order; the graph may be edited meanwhile."""
        return iter(list(self.nodes.values()))

    @property
    def output(self) -> str:
        """The node of the first result."""
        return next(iter(self.outputs.values()))

    @property
    def layout(self) -> OutputLayout:
        """The results' shapes for one picture."""
        return OutputLayout({k: self.nodes[v].shape[1:] for k, v in self.outputs.items()})

    @property
    def input(self) -> Node:
        """The one input node."""
        return next(node for node in self if node.op is OpKind.INPUT)

    def consumers(self, name: str) -> list[Node]:
        """Nodes that read `name`, in execution order."""
        return [node for node in self if name in node.inputs]

    def operand(self, node: Node, index: int = 0) -> Node:
        """Return the node behind one input."""
        return self.nodes[node.inputs[index]]

    def tensor(self, node: Node, role: str) -> FloatArray | IntArray:
        """Return the stored values of one parameter: float, or codes if quantized."""
        return self.tensors[node.params[role]]

    def real(self, node: Node, role: str) -> FloatArray:
        """One parameter as float32, dequantized if it is quantized."""
        key = node.params[role]
        if key in self.qparams:
            return dequantize(self.tensors[key], self.qparams[key])
        return self.tensors[key]

    def set_param(self, node: Node, role: str, value: FloatArray) -> None:
        """Give a node a parameter of its own (shared tensors stay as they are).

        A module of the traced model may be called like a node: its tensor is not overwritten.
        """
        key = f"{node.name}.{role}"
        taken = {k for other in self if other is not node for k in other.params.values()}
        while key in taken:
            key += "_"
        node.params[role] = key
        self.tensors[key] = np.ascontiguousarray(value)

    def insert_after(self, anchor: str, node: Node) -> None:
        """Insert a node behind another in execution order."""
        items = list(self.nodes.items())
        at = list(self.nodes).index(anchor) + 1
        self.nodes = dict([*items[:at], (node.name, node), *items[at:]])

    def replace_input(self, node: Node, old: str, new: str) -> None:
        """Let a node read `new` where it read `old`."""
        node.inputs = tuple(new if name == old else name for name in node.inputs)

    def bypass(self, node: Node) -> None:
        """Remove a node; its readers read its first input."""
        source = node.inputs[0]
        for reader in self.consumers(node.name):
            self.replace_input(reader, node.name, source)
        self.outputs = {k: source if v == node.name else v for k, v in self.outputs.items()}
        del self.nodes[node.name]

    def remove_dead(self) -> None:
        """Drop nodes that nothing reads, and tensors that no node holds."""
        live = set(self.outputs.values())
        for node in reversed(list(self.nodes.values())):
            if node.name in live:
                live.update(node.inputs)
        self.nodes = {n: node for n, node in self.nodes.items() if n in live or node.op == "input"}
        keys = {key for node in self for key in node.params.values()}
        self.tensors = {key: value for key, value in self.tensors.items() if key in keys}
        self.qparams = {key: value for key, value in self.qparams.items() if key in keys}

    def check_finite(self) -> None:
        """Refuse non-finite float tensors, naming all of them."""
        bad = [
            key
            for key, value in self.tensors.items()
            if np.issubdtype(value.dtype, np.floating) and not np.all(np.isfinite(value))
        ]
        if bad:
            raise VitqError(f"weights are not finite (NaN or Inf) in: {', '.join(sorted(bad))}")
