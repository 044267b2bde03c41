"""Rotations: ``x cos + x' sin``, two products with constant tables and their sum, one rounding.

The products stay accumulators, exact in int32; that they can be added as they are, both must have
one step: x and x' are codes of one quantizer (x' is x with its channels exchanged), and the tables
share a scale, the larger one's.
"""

from typing import NamedTuple

from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind


class Rotation(NamedTuple):
    """The tables of a sum of two products.

    Attributes:
        one: a constant of the first product; only such sums of the same two tables read it.
        two: likewise of the second.
    """

    one: Node
    two: Node


def is_rotation(graph: Graph, node: Node) -> bool:
    """Whether a quantized sum adds two products that have no quantizers of their own."""
    sources = [graph.operand(node, index) for index in range(len(node.inputs))]
    return node.op is OpKind.ADD and all(
        source.op is OpKind.MULTIPLY and source.out is None for source in sources
    )


def rotations(graph: Graph) -> dict[str, Rotation]:
    """Find the sums that can be taken of accumulators.

    Args:
        graph: float, before quantizers are placed.

    Returns:
        The sum's name -> its two tables.
    """
    found: dict[str, Rotation] = {}
    owners: dict[str, tuple[str, str]] = {}
    for node in graph:
        tables = _tables(graph, node) if node.op is OpKind.ADD else None
        if tables is None:
            continue
        pair = tables.one.name, tables.two.name
        if all(owners.setdefault(name, pair) == pair for name in pair):
            found[node.name] = tables
    return found


def _tables(graph: Graph, node: Node) -> Rotation | None:
    """Return the tables of a rotation; None for any other sum."""
    if len(set(node.inputs)) != 2:
        return None
    turned, tables = [], []
    for name in node.inputs:
        product = graph.nodes[name]
        if product.op is not OpKind.MULTIPLY or len(graph.consumers(name)) != 1:
            return None
        parts = [graph.operand(product, index) for index in range(2)]
        constants = [part for part in parts if part.op is OpKind.CONSTANT]
        if len(constants) != 1 or not _is_factor(graph, constants[0]):
            return None
        tables += constants
        turned += [part for part in parts if part is not constants[0]]
    one, two = (_above(graph, node) for node in turned)
    same = turned[0].name in two or turned[1].name in one
    return Rotation(*tables) if same else None


def _is_factor(graph: Graph, node: Node) -> bool:
    """Whether a constant goes into products alone."""
    return all(reader.op is OpKind.MULTIPLY for reader in graph.consumers(node.name))


def _above(graph: Graph, node: Node) -> set[str]:
    """Return a value and those above it, through layout."""
    found = {node.name}
    while node.op in LAYOUT_OPS:
        node = graph.operand(node)
        found.add(node.name)
    return found
