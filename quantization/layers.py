"""Parameters of one layer: what quantizes its input, its weight's codes, its bias."""

import numpy as np
import torch

from numerics.arrays import FloatArray
from numerics.errors import VitqError
from numerics.qparams import PerAxis, QScheme, QuantParams, quantize
from quantization.graph import LAYOUT_OPS, Graph, Node, OpKind
from quantization.methods import Method, WeightRounding
from quantization.weight_rounding import round_weight

BIAS_LIMIT = 2.0**29
INT32_MAX = 2**31 - 1


def quantized_source(graph: Graph, node: Node, index: int = 0) -> tuple[Node, float]:
    """What quantizes one input, looked up through layout, and the factor on the way."""
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
        if reader.op in (OpKind.MATMUL, OpKind.NORMALIZED_MATMUL, OpKind.EXP, OpKind.SOFTMAX):
            return True
        if (reader.op in LAYOUT_OPS or reader.op is OpKind.SCALE) and _feeds_product(graph, reader):
            return True
    return False


def quantize_constant(graph: Graph, node: Node) -> None:
    """Turn a constant into codes of its node's parameters."""
    assert node.out is not None
    graph.set_param(node, "value", quantize(graph.real(node, "value"), node.out))
    graph.qparams[node.params["value"]] = node.out


def round_layer(
    graph: Graph,
    node: Node,
    bits: int,
    method: Method,
    rows: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    scales: FloatArray | None = None,
) -> None:
    """Turn a layer's weight and bias into codes.

    The weight's scale is raised where the bias would overflow. With ``method.correct_bias`` the
    bias makes up for the rounding's mean error on the calibration data (DFQ, arXiv:1906.04721,
    Eq. 17, with means measured and not derived):

        b' = b + (W - W_q) E[x]

    so that rounding with feedback need only care for what varies: its H is the covariance.

    Args:
        graph: edited in place; what quantizes the layer's input is settled.
        node: linear or convolution.
        bits: of the weight.
        method: rounding, and whether the bias is corrected.
        rows: (R, K) what the layer reads; needed unless every weight goes to its nearest code.
        weights: (R,) of the rows, sum 1.
        scales: (O,) of the weight, if they are settled.
    """
    weight, bias = graph.real(node, "weight"), graph.real(node, "bias").astype(np.float64)
    flat = weight.reshape(weight.shape[0], -1)
    x_scale = input_scale(graph, node)
    mean, hessian = np.zeros(flat.shape[1]), torch.eye(flat.shape[1], dtype=torch.float64)
    if rows is not None and weights is not None:
        if method.correct_bias:
            mean = (weights @ rows.to(torch.float64)).numpy()
        if method.rounding is WeightRounding.FEEDBACK:
            hessian = _second_moment(rows, weights, mean)
    floor = np.abs(bias) / x_scale / BIAS_LIMIT
    codes, qparams = round_weight(flat, bits, method.rounding, hessian, floor, scales)
    real = codes * qparams.scale.astype(np.float64)[:, None]
    bias = bias + (flat - real) @ mean
    graph.set_param(node, "weight", codes.reshape(weight.shape))
    graph.qparams[node.params["weight"]] = qparams
    _quantize_bias(graph, node, bias, x_scale * qparams.scale.astype(np.float64))


def _second_moment(rows: torch.Tensor, weights: torch.Tensor, mean: FloatArray) -> torch.Tensor:
    """(K, K) float64: weighted ``E[(x - mean) (x - mean)^T]``."""
    centred = rows - torch.from_numpy(mean).to(rows.dtype)
    scaled = centred * weights.sqrt().to(rows.dtype)[:, None]
    return (scaled.T @ scaled).to(torch.float64)


def _quantize_bias(graph: Graph, node: Node, bias: FloatArray, step: FloatArray) -> None:
    graph.set_param(node, "bias", np.rint(bias / step).astype(np.int32))
    graph.qparams[node.params["bias"]] = QuantParams(
        step.astype(np.float32), np.zeros(step.shape, np.int32), -INT32_MAX, INT32_MAX, PerAxis(0)
    )
