"""A one-block QDQ vision transformer with random weights, and its value in plain integers.

`build` writes the ONNX graph, `reference` computes it with ``numerics/`` layer by layer, without
TVM and without any pass. Scales are chosen by hand so that no tensor saturates everywhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vitq.numerics.add import add_params, int_add
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.numerics.int_layernorm import int_layernorm, layernorm_params
from vitq.numerics.matmul import int_matmul
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params, shiftgelu
from vitq.numerics.shiftmax import (
    SMALLEST_CODE_SUM,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax_codes,
)

IMAGE, PATCH, CHANNELS, HEADS, HIDDEN, CLASSES = 8, 4, 16, 2, 32, 10
DEPTH = CHANNELS // HEADS
PATCHES = (IMAGE // PATCH) ** 2
TOKENS = PATCHES + 1
PIXEL_SCALE = np.float32(1 / 255)
ATTENTION_SCALE = np.float32(DEPTH**-0.5)
EPS = 3e-5  # not the usual 1e-6: a pass that drops it is caught


@dataclass(frozen=True)
class Q:
    """One activation's quantizer."""

    scale: Any
    zero_point: int = 0
    dtype: str = "int8"

    @property
    def qparams(self) -> QuantParams:
        """As the contract's type."""
        info = np.iinfo(self.dtype)
        return QuantParams(np.float32(self.scale), np.int32(self.zero_point), info.min, info.max)

    @property
    def real(self) -> float:
        """The float32 scale as Python float."""
        return float(np.float32(self.scale))


QUANTIZERS = {
    "embed": Q(1e-4, 0, "int16"),
    "stream": Q(1.3e-4, 0, "int16"),
    "ln1": Q(0.021, -3),
    "q": Q(0.02, 2),
    "k": Q(0.023, -1),
    "v": Q(0.019, 1),
    "codes": Q(1 / 255, 0, "uint8"),
    "attended": Q(0.012, 4),
    "proj": Q(1.1e-4, 0, "int16"),
    "stream2": Q(1.5e-4, 0, "int16"),
    "ln2": Q(0.024, 5),
    "fc1": Q(1.2e-4, 0, "int16"),
    "gelu": Q(0.017, -110),
    "fc2": Q(1.4e-4, 0, "int16"),
    "stream3": Q(1.7e-4, 0, "int16"),
    "ln3": Q(0.022, 1),
    "logits": Q(2.0e-4, 0, "int16"),
}


@dataclass
class Layer:
    """One layer with weights: codes (N, K), scale (N,), bias in accumulator steps (N,)."""

    weight: Any
    scale: Any
    bias: Any


def make_layer(rng: np.random.Generator, outputs: int, inputs: int) -> Layer:
    """Random weights at their usual size: outputs of about the inputs' size."""
    weight = rng.integers(-127, 128, (outputs, inputs))
    scale = rng.uniform(0.5, 1.5, outputs) / (70 * np.sqrt(inputs))
    bias = rng.integers(-300, 300, outputs)
    return Layer(weight.astype(np.int8), scale.astype(np.float32), bias.astype(np.int32))


def make_weights(seed: int = 0) -> dict[str, Any]:
    """All constants of the network."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Any] = {
        "patch": make_layer(rng, CHANNELS, 3 * PATCH * PATCH),
        "qkv": make_layer(rng, 3 * CHANNELS, CHANNELS),
        "proj": make_layer(rng, CHANNELS, CHANNELS),
        "fc1": make_layer(rng, HIDDEN, CHANNELS),
        "fc2": make_layer(rng, CHANNELS, HIDDEN),
        "head": make_layer(rng, CLASSES, CHANNELS),
        "cls": rng.integers(-9000, 9000, (1, 1, CHANNELS)).astype(np.int16),
        "pos": rng.integers(-9000, 9000, (1, TOKENS, CHANNELS)).astype(np.int16),
        "pos_scale": np.float32(0.7e-4),
    }
    for name in ("ln1", "ln2", "ln3"):
        gamma = rng.uniform(-0.3, 1.4, CHANNELS).astype(np.float32)
        weights[name] = (gamma, rng.normal(0, 0.3, CHANNELS).astype(np.float32))
    return weights


class Builder:
    """Collects ONNX nodes and initializers."""

    def __init__(self) -> None:
        """Begin empty."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def const(self, value: Any) -> str:
        """A new initializer."""
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        """A new node with one output."""
        self._count += 1
        name = f"t{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attrs))
        return name

    def dq(self, codes: str, scale: Any, zero_point: Any, axis: int = 1) -> str:
        """DequantizeLinear."""
        constants = self.const(np.float32(scale)), self.const(zero_point)
        return self.op("DequantizeLinear", codes, *constants, axis=axis)

    def qdq(self, x: str, q: Q) -> str:
        """QuantizeLinear and DequantizeLinear."""
        zero_point = np.array(q.zero_point, q.dtype)
        scale, zero = self.const(np.float32(q.scale)), self.const(zero_point)
        return self.dq(self.op("QuantizeLinear", x, scale, zero), q.scale, zero_point)

    def linear(self, x: str, layer: Layer, x_scale: float) -> str:
        """MatMul with transposed int8 weights, and an int32 bias."""
        zeros = np.zeros(layer.weight.shape[0], np.int8)
        weight = self.dq(self.const(layer.weight), layer.scale, zeros, axis=0)
        product = self.op("MatMul", x, self.op("Transpose", weight, perm=[1, 0]))
        scale = (np.float32(x_scale) * layer.scale).astype(np.float32)
        bias = self.dq(self.const(layer.bias), scale, zeros.astype(np.int32), axis=0)
        return self.op("Add", product, bias)


def build(weights: dict[str, Any]) -> onnx.ModelProto:
    """The QDQ graph: pixels uint8 (N, 3, 8, 8) to logits float32 (N, 10)."""
    b = Builder()
    q = QUANTIZERS
    x = _embed(b, weights)
    x = b.qdq(x, q["stream"])
    y = b.op("LayerNormalization", x, *map(b.const, weights["ln1"]), axis=-1, epsilon=EPS)
    y = _attention(b, weights, b.qdq(y, q["ln1"]))
    x = b.qdq(b.op("Add", x, b.qdq(y, q["proj"])), q["stream2"])
    y = b.op("LayerNormalization", x, *map(b.const, weights["ln2"]), axis=-1, epsilon=EPS)
    y = b.qdq(b.linear(b.qdq(y, q["ln2"]), weights["fc1"], q["ln2"].real), q["fc1"])
    y = b.qdq(b.op("Gelu", y), q["gelu"])
    y = b.qdq(b.linear(y, weights["fc2"], q["gelu"].real), q["fc2"])
    x = b.qdq(b.op("Add", x, y), q["stream3"])
    y = b.op("LayerNormalization", x, *map(b.const, weights["ln3"]), axis=-1, epsilon=EPS)
    y = b.op("Gather", b.qdq(y, q["ln3"]), b.const(np.int64(0)), axis=1)
    y = b.qdq(b.linear(y, weights["head"], q["ln3"].real), q["logits"])
    b.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        b.nodes,
        "tiny_vit",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 3, IMAGE, IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        b.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _embed(b: Builder, weights: dict[str, Any]) -> str:
    layer, q = weights["patch"], QUANTIZERS["embed"]
    pixels = b.dq("pixels", PIXEL_SCALE, np.uint8(0))
    zeros = np.zeros(CHANNELS, np.int8)
    kernel = layer.weight.reshape(CHANNELS, 3, PATCH, PATCH)
    weight = b.dq(b.const(kernel), layer.scale, zeros, axis=0)
    bias = b.dq(b.const(layer.bias), PIXEL_SCALE * layer.scale, zeros.astype(np.int32), axis=0)
    x = b.op("Conv", pixels, weight, bias, kernel_shape=[PATCH] * 2, strides=[PATCH] * 2)
    x = b.op("Reshape", x, b.const(np.array([-1, CHANNELS, PATCHES])))
    x = b.qdq(b.op("Transpose", x, perm=[0, 2, 1]), q)
    batch = b.op("Shape", x, start=0, end=1)
    shape = b.op("Concat", batch, b.const(np.array([1, CHANNELS])), axis=0)
    cls = b.dq(b.const(weights["cls"]), q.scale, np.int16(0))
    x = b.op("Concat", b.op("Expand", cls, shape), x, axis=1)
    return b.op("Add", x, b.dq(b.const(weights["pos"]), weights["pos_scale"], np.int16(0)))


def _attention(b: Builder, weights: dict[str, Any], x: str) -> str:
    q = QUANTIZERS
    x = b.linear(x, weights["qkv"], q["ln1"].real)
    x = b.op("Reshape", x, b.const(np.array([-1, TOKENS, 3, HEADS, DEPTH])))
    x = b.op("Transpose", x, perm=[2, 0, 3, 1, 4])
    parts = [
        b.qdq(b.op("Gather", x, b.const(np.int64(i)), axis=0), q[name])
        for i, name in enumerate("qkv")
    ]
    scores = b.op("MatMul", parts[0], b.op("Transpose", parts[1], perm=[0, 1, 3, 2]))
    scores = b.op("Mul", scores, b.const(ATTENTION_SCALE))
    axes = b.const(np.array([-1]))
    difference = b.op("Sub", scores, b.op("ReduceMax", scores, axes, keepdims=1))
    codes = b.qdq(b.op("Exp", difference), q["codes"])
    total = b.op("ReduceSum", codes, axes, keepdims=1)
    y = b.op("Div", b.op("MatMul", codes, parts[2]), total)
    y = b.op("Transpose", y, perm=[0, 2, 1, 3])
    y = b.op("Reshape", y, b.const(np.array([-1, TOKENS, CHANNELS])))
    return b.linear(b.qdq(y, q["attended"]), weights["proj"], q["attended"].real)


def int_linear(x: Any, layer: Layer, x_scale: float, x_zero_point: int, *outs: Q) -> Any:
    """A linear layer in integers; several quantizers share its channels evenly."""
    acc_scale = x_scale * layer.scale.astype(np.float64)
    out_scale = np.repeat([q.real for q in outs], len(acc_scale) // len(outs))
    zero_point = np.repeat([q.zero_point for q in outs], len(acc_scale) // len(outs))
    acc = int_matmul(x.astype(np.int64) - x_zero_point, layer.weight.T) + layer.bias
    info = np.iinfo(outs[0].dtype)
    codes = rescale(acc, to_dyadic(acc_scale / out_scale)) + zero_point
    return np.clip(codes, info.min, info.max)


def int_norm(x: Any, x_scale: float, affine: Any, out: Q) -> Any:
    """Layer normalization in integers."""
    return int_layernorm(x, layernorm_params(x_scale, EPS, *affine, out.qparams))


def reference(weights: dict[str, Any], pixels: Any) -> Any:
    """The network in integers: (N, 10) int16 codes of the logits."""
    q = QUANTIZERS
    n, grid = len(pixels), IMAGE // PATCH
    tiles = pixels.reshape(n, 3, grid, PATCH, grid, PATCH).transpose(0, 2, 4, 1, 3, 5)
    x = int_linear(
        tiles.reshape(n, PATCHES, -1), weights["patch"], float(PIXEL_SCALE), 0, q["embed"]
    )
    x = np.concatenate([np.broadcast_to(weights["cls"], (n, 1, CHANNELS)), x], axis=1)
    pos_scale = float(weights["pos_scale"])
    p = add_params(q["embed"].real, 0, pos_scale, 0, q["stream"].qparams)
    x = int_add(x, weights["pos"], p)

    y = int_norm(x, q["stream"].real, weights["ln1"], q["ln1"])
    y = int_linear(y, weights["qkv"], q["ln1"].real, q["ln1"].zero_point, q["q"], q["k"], q["v"])
    query, key, value = y.reshape(n, TOKENS, 3, HEADS, DEPTH).transpose(2, 0, 3, 1, 4)
    scores = int_matmul(query - q["q"].zero_point, np.swapaxes(key - q["k"].zero_point, -1, -2))
    codes = shiftmax_codes(
        scores, code_params((q["q"].real * q["k"].real) * float(ATTENTION_SCALE))
    )
    norm = normalize_params(
        q["v"].real / q["attended"].real, SMALLEST_CODE_SUM, q["attended"].qparams
    )
    y = normalized_matmul(codes, value, q["v"].zero_point, norm)
    y = y.transpose(0, 2, 1, 3).reshape(n, TOKENS, CHANNELS)
    attended = q["attended"]
    y = int_linear(y, weights["proj"], attended.real, attended.zero_point, q["proj"])
    x = int_add(x, y, add_params(q["stream"].real, 0, q["proj"].real, 0, q["stream2"].qparams))

    y = int_norm(x, q["stream2"].real, weights["ln2"], q["ln2"])
    y = int_linear(y, weights["fc1"], q["ln2"].real, q["ln2"].zero_point, q["fc1"])
    y = shiftgelu(y, gelu_params(q["fc1"].real, 0, q["gelu"].qparams))
    y = int_linear(y, weights["fc2"], q["gelu"].real, q["gelu"].zero_point, q["fc2"])
    x = int_add(x, y, add_params(q["stream2"].real, 0, q["fc2"].real, 0, q["stream3"].qparams))

    y = int_norm(x[:, :1], q["stream3"].real, weights["ln3"], q["ln3"])[:, 0]
    return int_linear(y, weights["head"], q["ln3"].real, q["ln3"].zero_point, q["logits"])
