"""Find attention blocks and patch tokens in a traced graph, by what reads what, not by names."""

from dataclasses import dataclass

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind


@dataclass(frozen=True)
class PatchProbe:
    """Where patch similarity is measured.

    Attributes:
        blocks: names of the attention blocks' outputs, in execution order.
        start: index of the first patch among the tokens of a block.
        count: number of patches; None where a block does not see all of them (windows, pooling),
            and then all its tokens are taken.
    """

    blocks: tuple[str, ...]
    start: int
    count: int | None


def find_patches(graph: Graph) -> PatchProbe:
    """Find the attention blocks' outputs and which of their tokens are patches.

    An attention block is ``softmax -> matmul -> layout -> linear``; its output is the linear
    layer's, or the product's if no linear layer follows. Patches are what the patch convolution
    makes; tokens that a concatenation puts before or behind them (class, distillation, registers)
    are left out.

    Args:
        graph: float, as traced.

    Returns:
        The probe.

    Raises:
        VitqError: if the graph has no softmax attention.
    """
    products = [
        reader
        for node in graph
        if node.op is OpKind.SOFTMAX
        for reader in graph.consumers(node.name)
        if reader.op is OpKind.MATMUL
    ]
    if not products:
        raise VitqError("no softmax attention found: psaq needs one, give --calib a folder")
    blocks = [_projection(graph, product) for product in products]
    start, count = _patch_span(graph)
    whole = all(node.shape[-2] >= start + count for node in blocks)
    names = tuple(node.name for node in blocks)
    return PatchProbe(names, start, count) if whole else PatchProbe(names, 0, None)


def _projection(graph: Graph, product: Node) -> Node:
    """Return the linear layer that reads a product through layout, or the product."""
    node = product
    while True:
        readers = graph.consumers(node.name)
        if len(readers) != 1:
            return product
        node = readers[0]
        if node.op is OpKind.LINEAR:
            return node
        if node.op not in LAYOUT_OPS:
            return product


def _patch_span(graph: Graph) -> tuple[int, int]:
    """Index of the first patch among all tokens, and how many patches there are."""
    conv = next((node for node in graph if node.op is OpKind.CONV2D), None)
    if conv is None:
        raise VitqError("no patch convolution found: psaq needs one, give --calib a folder")
    start = 0
    made_of_patches = {conv.name}
    for node in graph:
        inside = [name for name in node.inputs if name in made_of_patches]
        if not inside:
            continue
        made_of_patches.add(node.name)
        if node.op is OpKind.SOFTMAX:
            break
        if node.op is OpKind.CONCAT and len(inside) == 1:
            before = node.inputs[: node.inputs.index(inside[0])]
            start += sum(graph.nodes[name].shape[node.attrs["axis"]] for name in before)
    return start, conv.shape[2] * conv.shape[3]
