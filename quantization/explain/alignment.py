"""The float model with the shape and the scales of the quantized one, to compare node by node.

Quantization moves scales of channels from one node into its neighbours, so that a node's integers
do not stand for the values of the traced model. What moved is known, and the float model can
follow; its function stays the same:

    LayerNorm (`quantization.ranges.reparameterize`), from its affine before and after:
        r = gamma / gamma',  o = r beta' - beta      behind it  W' = W r,  b' = b - W o
    V (`quantization.ranges.equalize`), from what that noted:
        W_v' = c W_v,  b_v' = c (b_v - m)            behind it  W_o' = W_o / c,  b_o' = b_o + W_o m
    keys (`quantization.ranges.center_keys`), likewise:
        b_k' = b_k - m

The result has the quantized graph's nodes, requantizations included (they do nothing in float), and
no quantizer.
"""

import copy
from typing import TYPE_CHECKING

import numpy as np

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.ranges.center_keys import KEY_SHIFT
from vitq.quantization.ranges.equalize import FACTOR, SHIFT, value_paths
from vitq.quantization.ranges.gates import RATIO, find_gates
from vitq.quantization.ranges.reparameterize import linear_readers

if TYPE_CHECKING:
    from vitq.numerics.arrays import FloatArray

PREFIX = "float."
"""Before the keys of tensors, so that both graphs' tensors go into one table."""


def align(exact: Graph, quantized: Graph) -> Graph:
    """Return the float model in the quantized model's terms.

    Args:
        exact: traced and rewritten (`quantization.ranges.calibrate.rewrite`), not edited.
        quantized: made from it.

    Returns:
        Nodes as in `quantized`, parameters in float.

    Raises:
        VitqError: if the graphs have other nodes.
    """
    nodes: dict[str, Node] = {}
    aligned = Graph(nodes, dict(quantized.outputs), {})
    for node in quantized:
        twin = nodes[node.name] = copy.copy(node)
        twin.out, twin.params = None, {}
        origin = exact.nodes.get(node.name)
        if origin is None and node.params:
            raise VitqError(
                f"the float model has no {node.name}: the artifact was made from another one, or "
                "by another version of vitq: quantize again"
            )
        if origin is None:
            continue
        twin.source = origin.source
        for role in origin.params:
            twin.params[role] = f"{PREFIX}{node.name}.{role}"
            aligned.tensors[twin.params[role]] = exact.real(origin, role)
    for node in quantized:
        if node.op is OpKind.LAYER_NORM:
            _follow_layernorm(aligned, quantized, node)
        elif FACTOR in node.params:
            _follow_value(aligned, quantized, node)
        if KEY_SHIFT in node.params:
            _, bias = _affine(aligned, node.name)
            _set(aligned, node.name, bias=bias - quantized.real(node, KEY_SHIFT))
    _follow_gates(aligned, quantized)
    return aligned


def _follow_gates(aligned: Graph, quantized: Graph) -> None:
    """Scale the channels behind gates as the quantized model does, and undo it behind them."""
    for gate in find_gates(quantized):
        if RATIO not in gate.product.params:
            continue
        ratio = quantized.real(gate.product, RATIO).astype(np.float64)
        weight, bias = _affine(aligned, gate.linear.name)
        weight[gate.rows] /= ratio[:, None]
        bias[gate.rows] /= ratio
        _set(aligned, gate.linear.name, weight=weight, bias=bias)
        for reader in gate.readers:
            columns, _ = _affine(aligned, reader.name)
            _set(aligned, reader.name, weight=columns * ratio)


def _follow_layernorm(aligned: Graph, quantized: Graph, node: Node) -> None:
    """Take over a LayerNorm's affine, and undo it in the layers behind."""
    gamma, beta, new_gamma, new_beta = (
        graph.real(graph.nodes[node.name], role).astype(np.float64)
        for graph in (aligned, quantized)
        for role in ("gamma", "beta")
    )
    if np.array_equal(gamma, new_gamma) and np.array_equal(beta, new_beta):
        return
    live = new_gamma != 0
    ratio = np.where(live, gamma / np.where(live, new_gamma, 1.0), 1.0)
    offset = ratio * new_beta - beta
    _set(aligned, node.name, gamma=new_gamma, beta=new_beta)
    for linear in linear_readers(quantized, node) or ():
        weight, bias = _affine(aligned, linear.name)
        _set(aligned, linear.name, weight=weight * ratio, bias=bias - weight @ offset)


def _follow_value(aligned: Graph, quantized: Graph, linear: Node) -> None:
    """Scale and shift V as the quantized model does, and undo it in the projection."""
    factors, shifts = (quantized.real(linear, role).astype(np.float64) for role in (FACTOR, SHIFT))
    for path in value_paths(quantized, linear):
        rows = path.rows
        factor, shift = factors[rows], shifts[rows]
        weight, bias = _affine(aligned, linear.name)
        weight[rows] *= factor[:, None]
        bias[rows] = (bias[rows] - shift) * factor
        _set(aligned, linear.name, weight=weight, bias=bias)
        weight, bias = _affine(aligned, path.projection.name)
        _set(aligned, path.projection.name, weight=weight / factor, bias=bias + weight @ shift)


def _affine(graph: Graph, name: str) -> "tuple[FloatArray, FloatArray]":
    node = graph.nodes[name]
    weight, bias = (graph.real(node, role).astype(np.float64) for role in ("weight", "bias"))
    return weight, bias


def _set(graph: Graph, name: str, **values: "FloatArray") -> None:
    """Replace some of a node's parameters, which are its own."""
    for role, value in values.items():
        graph.tensors[graph.nodes[name].params[role]] = value.astype(np.float32)
