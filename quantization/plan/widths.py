"""Which widths each layer of a graph has, by a recipe."""

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.plan.recipe import LayerBits, Recipe

PRODUCTS = (OpKind.CONV2D, OpKind.LINEAR, OpKind.MATMUL, OpKind.NORMALIZED_MATMUL)
WEIGHT, ACTIVATION = "weight", "activation"
PARTS = (WEIGHT, ACTIVATION)
"""Of a product: its weights, and what it reads."""
FULL_BITS = 8
_LAYERS = (OpKind.CONV2D, OpKind.LINEAR)
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
    unknown = [bits.layer for bits in recipe.layers if bits.layer not in widths]
    if unknown:
        raise VitqError(
            f"recipe {recipe.name} names {', '.join(unknown)}: the layers are {', '.join(names)}"
        )
    return widths | {bits.layer: bits for bits in recipe.layers}


def first_layers(graph: Graph) -> list[str]:
    """Return the layers that read pixels."""
    return [
        node.name
        for node in graph
        if node.op in _LAYERS and _root(graph, graph.operand(node)).op is OpKind.INPUT
    ]


def _root(graph: Graph, node: Node) -> Node:
    while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
        node = graph.operand(node)
    return node


def last_layers(graph: Graph) -> list[str]:
    """Return the layers that make the logits: nothing but sums and layout follows them."""
    found, pending = [], [graph.output]
    while pending:
        node = graph.nodes[pending.pop()]
        if node.op in _LAYERS:
            found.append(node.name)
        elif node.op in _BETWEEN:
            pending += node.inputs
    return found
