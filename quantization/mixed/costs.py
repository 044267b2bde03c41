"""What a matrix product costs: bytes of weights, and bit operations."""

import math
from dataclasses import dataclass

from vitq.numerics.twin_codes import ONE_RANGE
from vitq.quantization.graph.graph import LAYER_OPS, LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.plan.attention_codes import log_codes_of, twin_codes_of
from vitq.quantization.plan.widths import PRODUCTS

BYTE = 8
PACKED_BITS = 4
"""Weights of up to so many bits are packed in the library; wider ones take a byte each."""


@dataclass(frozen=True)
class ProductCost:
    """One matrix product's size.

    Attributes:
        layer: its node.
        macs: multiplications with accumulation for one picture.
        weights: number of weights, 0 for a product of two activations.
        fixed_bits: width of an operand that no recipe changes (pixels, uniform attention weights),
            or None.
    """

    layer: str
    macs: int
    weights: int
    fixed_bits: int | None

    def size_bytes(self, weight_bits: int) -> int:
        """Bytes of the weights in the library."""
        stored = weight_bits if weight_bits <= PACKED_BITS else BYTE
        return math.ceil(self.weights * stored / BYTE)

    def bit_operations(self, weight_bits: int, activation_bits: int) -> int:
        """BitOps: multiplications times the widths of both operands."""
        if self.weights:
            return self.macs * weight_bits * (self.fixed_bits or activation_bits)
        return self.macs * (self.fixed_bits or activation_bits) * activation_bits


def product_costs(graph: Graph) -> list[ProductCost]:
    """Return the costs of every matrix product, in execution order.

    Args:
        graph: after `quantization.graph.rewrites`, float or quantized.

    Returns:
        One entry for each product.
    """
    return [_cost(graph, node) for node in graph if node.op in PRODUCTS]


def _cost(graph: Graph, node: Node) -> ProductCost:
    results = math.prod(node.shape)
    sources = [operand_source(graph, node, index) for index in range(len(node.inputs))]
    fixed_bits = BYTE if any(has_fixed_width(source) for source in sources) else None
    if node.op not in LAYER_OPS:
        inner = graph.operand(node).shape[-1]
        return ProductCost(node.name, results * inner, 0, fixed_bits)
    weights = graph.tensor(node, "weight").size
    inner = weights // graph.tensor(node, "weight").shape[0]
    return ProductCost(node.name, results * inner, weights, fixed_bits)


def has_fixed_width(source: Node) -> bool:
    """Whether no recipe changes the width of an operand."""
    if source.op is OpKind.EXP:
        return log_codes_of(source) is None and twin_codes_of(source) == ONE_RANGE
    return source.op in (OpKind.INPUT, OpKind.SOFTMAX)


def operand_source(graph: Graph, node: Node, index: int) -> Node:
    """Return what computes or quantizes one operand, looked up through layout and scale."""
    source = graph.operand(node, index)
    while source.out is None and (source.op in LAYOUT_OPS or source.op is OpKind.SCALE):
        source = graph.operand(source)
    return source
