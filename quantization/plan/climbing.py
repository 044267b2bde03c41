"""Ways through a graph between a value and its readers, over what only moves it.

A quantizer that a reader asks for stands above, where the value is computed; whoever else reads it
there, perhaps behind layout of its own, reads its codes, too.
"""

import numpy as np

from vitq.quantization.graph.graph import ACCUMULATOR_OPS, LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.moving import moved


def origin(graph: Graph, name: str) -> str:
    """Climb from a value through scale and layout to what computes it."""
    node = graph.nodes[name]
    while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
        node = graph.operand(node)
    return node.name


def climb(graph: Graph, name: str) -> str:
    """Return the node whose result is quantized for a reader of `name`.

    An accumulator may travel through layout, so it is quantized where it is read (onnxruntime
    1.31 fails on a Transpose behind a DequantizeLinear of int8), or above, where others read the
    same channels: a rotation's q goes into one product as it is and into another with its channels
    exchanged, of all tokens or some, and a channel has one scale. All others are quantized where
    they are computed, as long as one path leads there.
    """
    if graph.nodes[origin(graph, name)].op in ACCUMULATOR_OPS:
        return _above_codes(graph, name) or sharing(graph, name) or name
    node = graph.nodes[name]
    while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
        above = graph.operand(node)
        if len(graph.consumers(above.name)) != 1:
            break
        node = above
    return node.name


def _above_codes(graph: Graph, name: str) -> str:
    """Return what is read by the uppermost pad, maximum or expand above a value; or nothing.

    The first two compare or fill codes of one scale, which accumulators of a layer do not have;
    what is repeated is quantized once.
    """
    found, node = "", graph.nodes[name]
    while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
        if node.op in (OpKind.PAD, OpKind.MAX, OpKind.EXPAND):
            found = node.inputs[0]
        node = graph.operand(node)
    return found


def sharing(graph: Graph, name: str) -> str | None:
    """Return the uppermost value above whose readers share channels of an accumulator, if any."""
    path = [graph.nodes[name]]
    while path[0].op in LAYOUT_OPS:
        path.insert(0, graph.operand(path[0]))
    if path[0].op not in ACCUMULATOR_OPS:
        return None  # no accumulator, or a factor is between
    axis = 1 if path[0].op is OpKind.CONV2D else -1
    channels = np.moveaxis(np.zeros(path[0].shape, np.int64), axis, -1)
    ids = np.moveaxis(channels + np.arange(channels.shape[-1]), -1, axis)
    for node in path:
        ids = ids if node is path[0] else moved(node, ids)
        readers = [
            len(np.unique(moved(reader, ids))) if reader.op in LAYOUT_OPS else len(np.unique(ids))
            for reader in graph.consumers(node.name)
        ]
        if sum(readers) > len(np.unique(ids)):
            return node.name
    return None


def readers(graph: Graph, node: Node) -> list[Node]:
    """Return what reads a value, through layout and scale."""
    found: list[Node] = []
    for reader in graph.consumers(node.name):
        is_moved = reader.op in LAYOUT_OPS or reader.op is OpKind.SCALE
        found += readers(graph, reader) if is_moved else [reader]
    return found
