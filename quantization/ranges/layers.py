"""Parameters of one layer: what quantizes its input, its weight's codes, its bias."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.linear import round_bias
from vitq.numerics.matmul import product_scale
from vitq.numerics.qparams import PerAxis, QScheme, QuantParams, quantize
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.plan.methods import Method, WeightRounding
from vitq.quantization.ranges.weight_rounding import round_weight

_READS_PRODUCTS = {
    OpKind.MATMUL,
    OpKind.NORMALIZED_MATMUL,
    OpKind.EXP,
    OpKind.SOFTMAX,
    OpKind.OFFSET,
}
BIAS_LIMIT = 2.0**29
INT32_MAX = 2**31 - 1


def quantized_source(graph: Graph, node: Node, index: int = 0) -> tuple[Node, float]:
    """Return what quantizes one input, looked up through layout, and the factor on the way."""
    source, factor = graph.operand(node, index), 1.0
    while source.out is None:
        if source.op not in LAYOUT_OPS and source.op is not OpKind.SCALE:
            raise VitqError(f"{node.name} reads {source.name}, which has no quantizer")
        factor *= source.attrs.get("factor", 1.0)
        source = graph.operand(source)
    return source, factor


def input_scale(graph: Graph, node: Node, index: int = 0) -> float:
    """Real value of one step of an input."""
    source, factor = quantized_source(graph, node, index)
    assert source.out is not None
    return float(source.out.scale) * factor


def activation_scheme(graph: Graph, node: Node) -> QScheme:
    """Symmetric where a matrix product of two activations reads the value, directly or not.

    A zero point on both sides of a product would cost row and column sums.
    """
    return QScheme.SYMMETRIC if _feeds_product(graph, node) else QScheme.AFFINE


def _feeds_product(graph: Graph, node: Node) -> bool:
    for reader in graph.consumers(node.name):
        if reader.op in _READS_PRODUCTS:
            return True
        if (reader.op in LAYOUT_OPS or reader.op is OpKind.SCALE) and _feeds_product(graph, reader):
            return True
    return False


def quantize_constant(graph: Graph, node: Node) -> None:
    """Turn a constant into codes of its node's parameters."""
    assert node.out is not None
    graph.set_param(node, "value", quantize(graph.real(node, "value"), node.out))
    graph.qparams[node.params["value"]] = node.out


class Means(NamedTuple):
    """Means over the calibration pictures that a bias is corrected by.

    Attributes:
        read: (K,) of what the layer reads, as the quantized layers before produce it.
        produced: (O,) of what the layer produces in the float network.
    """

    read: FloatArray
    produced: FloatArray


class Inputs(NamedTuple):
    """What a layer reads on the calibration pictures.

    Attributes:
        rows: (R, K) values, as the quantized layers before produce them.
        weights: (R,) of the rows, sum 1.
        means: None where the bias is not corrected.
    """

    rows: torch.Tensor
    weights: torch.Tensor
    means: Means | None = None


def input_rows(graph: Graph, node: Node, x: torch.Tensor) -> torch.Tensor:
    """(R, K): what each output of a layer is a product with, from what the layer reads."""
    if node.op is OpKind.CONV2D:
        patch = graph.tensor(node, "weight").shape[2]
        return F.unfold(x, patch, stride=patch).transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)


def round_layer(
    graph: Graph,
    node: Node,
    bits: int,
    method: Method,
    inputs: Inputs | None = None,
    scales: FloatArray | None = None,
) -> None:
    """Turn a layer's weight and bias into codes.

    The weight's scale is raised where the bias would overflow. Where means are given, the bias
    makes up for the mean error on the calibration data (DFQ, arXiv:1906.04721, Sec. 4.2, with means
    measured and not derived), that of this layer's rounding and that of what the layers before hand
    on:

        b' = E[W x + b] - W_q E[x_q]

    so that rounding with feedback need only care for what varies: its H is the covariance. A
    corrected bias that would leave int32 (only what was calibrated on saturates as much as that)
    is left as it was.

    Args:
        graph: edited in place; what quantizes the layer's input is settled.
        node: linear or convolution.
        bits: of the weight.
        method: rounding.
        inputs: what the layer reads; needed unless every weight goes to its nearest code.
        scales: (O,) of the weight, if they are settled.
    """
    weight, bias = graph.real(node, "weight"), graph.real(node, "bias").astype(np.float64)
    flat = weight.reshape(weight.shape[0], -1)
    x_scale = input_scale(graph, node)
    hessian = torch.eye(flat.shape[1], dtype=torch.float64)
    means = None if inputs is None else inputs.means
    if inputs is not None and method.rounding is WeightRounding.FEEDBACK:
        hessian = _second_moment(inputs.rows, inputs.weights, centred=means is not None)
    floor = np.abs(bias) / x_scale / BIAS_LIMIT
    rounding, damping = method.rounding, method.damping
    codes, qparams = round_weight(flat, bits, rounding, hessian, floor, scales, damping)
    step = product_scale(x_scale, qparams.scale)
    if means is not None:
        corrected = means.produced - codes * qparams.scale.astype(np.float64)[:, None] @ means.read
        bias = np.where(np.abs(corrected) <= 2 * BIAS_LIMIT * step, corrected, bias)
    graph.set_param(node, "weight", codes.reshape(weight.shape))
    graph.qparams[node.params["weight"]] = qparams
    _quantize_bias(graph, node, bias, step)


def _second_moment(rows: torch.Tensor, weights: torch.Tensor, centred: bool) -> torch.Tensor:
    """(K, K) float64: weighted ``E[x x^T]``, around the mean if `centred`."""
    if centred:
        rows = rows - (weights @ rows.to(torch.float64)).to(rows.dtype)
    scaled = rows * weights.sqrt().to(rows.dtype)[:, None]
    return (scaled.T @ scaled).to(torch.float64)


def _quantize_bias(graph: Graph, node: Node, bias: FloatArray, step: FloatArray) -> None:
    graph.set_param(node, "bias", round_bias(bias, step).astype(np.int32))
    graph.qparams[node.params["bias"]] = QuantParams(
        step.astype(np.float32), np.zeros(step.shape, np.int32), -INT32_MAX, INT32_MAX, PerAxis(0)
    )
