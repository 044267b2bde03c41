"""Which widths each layer of a graph has, by a recipe."""

from collections import Counter

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import LAYER_OPS, LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.origins import label_of
from vitq.quantization.graph.outputs import LOGITS
from vitq.quantization.plan.recipe import LayerBits, Recipe

PRODUCTS = (*sorted(LAYER_OPS), OpKind.MATMUL, OpKind.NORMALIZED_MATMUL)
WEIGHT, ACTIVATION = "weight", "activation"
PARTS = (WEIGHT, ACTIVATION)
"""Of a product: its weights, and what it reads."""
FULL_BITS = 8
_AFTER = (*LAYOUT_OPS, OpKind.SCALE, OpKind.REQUANTIZE)
_BETWEEN = (*LAYOUT_OPS, OpKind.SCALE, OpKind.ADD, OpKind.MEAN, OpKind.CONCAT, OpKind.REQUANTIZE)


def layer_widths(graph: Graph, recipe: Recipe) -> dict[str, LayerBits]:
    """Return the widths of every matrix product.

    Args:
        graph: after `quantization.graph.rewrites`.
        recipe: the widths.

    Returns:
        Node name -> widths.

    Raises:
        VitqError: if the recipe names a layer that is none of the graph's products.
    """
    names = [node.name for node in graph if node.op in PRODUCTS]
    widths = {name: LayerBits(name, recipe.weight_bits, recipe.activation_bits) for name in names}
    for name in first_layers(graph):
        widths[name] = LayerBits(name, recipe.first_bits, recipe.activation_bits)
    for name in last_layers(graph):
        widths[name] = LayerBits(name, recipe.last_bits, recipe.last_bits)
    called = product_names(graph)
    unknown = [bits.layer for bits in recipe.layers if bits.layer not in called]
    if unknown:
        labels = {name: label_of(graph.nodes[name]) for name in names}
        known = (n if n == label else f"{n} ({label})" for n, label in labels.items())
        raise VitqError(
            f"recipe {recipe.name} names {', '.join(unknown)}: the layers are {', '.join(known)}"
        )
    return widths | {called[bits.layer]: bits for bits in recipe.layers}


def product_names(graph: Graph) -> dict[str, str]:
    """Return what a recipe may call each product: its module where that is unique, or its node.

    Args:
        graph: after `quantization.graph.rewrites`.

    Returns:
        Name -> node; modules come first.
    """
    products = [node for node in graph if node.op in PRODUCTS]
    labels = Counter(label_of(node) for node in products)
    unique = {label_of(node): node.name for node in products if labels[label_of(node)] == 1}
    return unique | {node.name: node.name for node in products}


def first_layers(graph: Graph) -> list[str]:
    """Return the layers that read pixels."""
    return [
        node.name
        for node in graph
        if node.op in LAYER_OPS and _root(graph, graph.operand(node)).op is OpKind.INPUT
    ]


def _root(graph: Graph, node: Node) -> Node:
    while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
        node = graph.operand(node)
    return node


def last_layers(graph: Graph) -> list[str]:
    """Return the layers that make the results.

    Nothing but sums and layout follows those that make logits. Another result may be the residual
    stream, a sum of layers all over the network: only what makes it alone counts there.
    """
    found: list[str] = []
    for name, last in graph.outputs.items():
        between = _BETWEEN if name == LOGITS else _AFTER
        pending = [last]
        while pending:
            node = graph.nodes[pending.pop()]
            if node.op in LAYER_OPS:
                found.append(node.name)
            elif node.op in between:
                pending += node.inputs
    return found
