"""The family of a node's integer operator, as data on the node.

``attrs["nonlinear"]`` of a softmax or GELU; absent where it is this project's own.
"""

from vitq.numerics.families import Nonlinear
from vitq.quantization.graph.graph import Graph, Node, OpKind

_OPERATORS = (OpKind.SOFTMAX, OpKind.GELU)


def family_of(node: Node) -> Nonlinear:
    """Which integer softmax or GELU a node is."""
    return Nonlinear(node.attrs.get("nonlinear", Nonlinear.VITQ))


def mark_family(graph: Graph, family: Nonlinear) -> None:
    """Say on each softmax and GELU which family is meant."""
    for node in graph:
        if node.op in _OPERATORS:
            node.attrs["nonlinear"] = family.value
