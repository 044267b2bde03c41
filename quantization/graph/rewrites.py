"""Rewrites of the float graph that come before calibration. None changes the float function.

Each must happen before the weights are rounded: that is why they are not passes behind the export.
"""

import logging

import numpy as np

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.origins import label_of

logger = logging.getLogger(__name__)

_PER_TOKEN = {
    OpKind.LAYER_NORM,
    OpKind.GELU,
    OpKind.LINEAR,
    OpKind.ADD,
    OpKind.SCALE,
    OpKind.POINTWISE,
    OpKind.RMS_NORM,
}


def refuse_final_softmax(graph: Graph) -> None:
    """Refuse a model whose result is probabilities: integers of logits rank classes finer.

    Raises:
        VitqError: if a softmax makes a result, directly or through layout.
    """
    for name, last in graph.outputs.items():
        node = graph.nodes[last]
        while node.op in LAYOUT_OPS or node.op is OpKind.SCALE:
            node = graph.operand(node)
        if node.op is not OpKind.SOFTMAX:
            continue
        if len(graph.outputs) > 1:
            raise VitqError(
                f"{label_of(node)}: the model's result {name} is a softmax's: leave it out with "
                f"--output-features, which names those to keep ({', '.join(graph.outputs)})"
            )
        raise VitqError(
            f"{label_of(node)}: the model ends in a softmax: let it return the logits, which rank "
            "the classes alike, and apply softmax to the dequantized result"
        )


def separate_outputs(graph: Graph) -> None:
    """Give a result that the network reads on, or that has two names, a node of its own.

        block -> next, result    =>    block -> next
                                       block -> requantize -> result

    So every rewrite and every placement sees the result as one more reader, and what is folded
    into the readers of a value (scales, selected tokens) never changes a result. The value may
    also be read on above the layout operators that make the result. Where both end at the same
    width `quantization.plan.placement` takes the node away again.
    """
    taken: set[str] = set()
    for name, last in list(graph.outputs.items()):
        source = graph.nodes[last]
        if last in taken or _is_read_on(graph, source):
            own = f"{last}.result" if f"{last}.result" not in graph.nodes else f"{last}.{name}"
            node = Node(own, OpKind.REQUANTIZE, (last,), source.shape, source.batch_axis)
            node.module = source.module
            graph.insert_after(last, node)
            graph.outputs[name] = own
        taken.add(last)


def _is_read_on(graph: Graph, result: Node) -> bool:
    """Whether something else reads what a result is made of by layout alone."""
    node, path = result, 0
    while len(graph.consumers(node.name)) == path:
        if node.op not in LAYOUT_OPS or not node.inputs:
            return False
        node, path = graph.operand(node), 1
    return True


_SCALED = {
    OpKind.LINEAR: ("weight", "bias"),
    OpKind.LAYER_NORM: ("gamma", "beta"),
    OpKind.RMS_NORM: ("gamma",),
}
"""Parameters of the operators that a factor for each channel goes into."""


def fold_channel_scales(graph: Graph) -> None:
    """Fold LayerScale into what is before it: gamma * (W x + b) = (gamma W) x + gamma b.

    Likewise into a normalization's weights. Where something else reads that, or it has no weights,
    the scale becomes a product with a constant.
    """
    for node in graph:
        if node.op is not OpKind.CHANNEL_SCALE:
            continue
        source, gamma = graph.operand(node), graph.real(node, "value")
        roles = _SCALED.get(source.op, ())
        if not roles or len(graph.consumers(source.name)) != 1:
            _multiply(graph, node)
            continue
        for role in roles:
            value = graph.real(source, role)
            factor = gamma[:, None] if role == "weight" else gamma
            graph.set_param(source, role, value * factor)
        graph.bypass(node)
    graph.remove_dead()


_SHIFTED = {OpKind.LINEAR: "bias", OpKind.LAYER_NORM: "beta"}
"""Parameters of the operators that an addend for each channel goes into."""


def fold_channel_shifts(graph: Graph) -> None:
    """Fold a vector that is added into what is before it: W x + (b + c), as of norms by hand."""
    for node in graph:
        if node.op is not OpKind.ADD:
            continue
        source, addend = (graph.operand(node, index) for index in (0, 1))
        role = _SHIFTED.get(source.op)
        is_vector = addend.op is OpKind.CONSTANT and addend.shape[-1:] == (np.prod(addend.shape),)
        if role is None or not is_vector or addend.shape[-1] != source.shape[-1]:
            continue
        if len(graph.consumers(source.name)) == 1 and source.shape == node.shape:
            shift = graph.real(addend, "value").reshape(-1)
            graph.set_param(source, role, graph.real(source, role) + shift)
            graph.bypass(node)
    graph.remove_dead()


def _multiply(graph: Graph, node: Node) -> None:
    """Turn a channel scale into a product with a constant."""
    value = graph.real(node, "value")
    factor = Node(f"{node.name}.factor", OpKind.CONSTANT, (), value.shape, None)
    factor.module, factor.params = node.module, node.params
    node.op, node.inputs, node.params = OpKind.MULTIPLY, (*node.inputs, factor.name), {}
    graph.insert_after(node.inputs[0], factor)


def select_tokens_early(graph: Graph) -> None:
    """Move a token's selection before the operators that treat every token alike.

    f(x)[:, i] = f(x[:, i]) for linear, GELU, LayerNorm, scale and add: where only the class token
    is read in the end, the last block's MLP and the last LayerNorm run on that token alone.
    """
    moved = True
    while moved:
        moved = any([_move_select(graph, node) for node in graph if node.op is OpKind.SELECT])


def _move_select(graph: Graph, select: Node) -> bool:
    """Swap one select with the per-token operator before it, if that is all that reads it."""
    if select.name not in graph.nodes:
        return False
    source = graph.operand(select)
    alone = len(graph.consumers(source.name)) == 1
    axis = select.attrs["axis"]
    inner = len(source.shape) - 1
    if source.op not in _PER_TOKEN or not alone or axis in (inner, source.batch_axis):
        return False
    operands = [graph.nodes[name] for name in source.inputs]
    if any(operand.shape[:inner] != source.shape[:inner] for operand in operands):
        return False
    for operand in dict.fromkeys(source.inputs):
        before = graph.nodes[operand]
        name = f"{operand}.select_{axis}_{select.attrs['index']}"
        if name not in graph.nodes:
            shape = tuple(dim for i, dim in enumerate(before.shape) if i != axis)
            early = Node(name, OpKind.SELECT, (operand,), shape, select.batch_axis)
            early.attrs, early.module = dict(select.attrs), before.module
            graph.insert_after(operand, early)
        graph.replace_input(source, operand, name)
    source.shape, source.batch_axis = select.shape, select.batch_axis
    graph.bypass(select)
    logger.debug("select %s moved before %s", select.name, source.name)
    return True


def defer_softmax_normalization(graph: Graph) -> None:
    """softmax(x) @ v = (exp(x - max) @ v) / sum(exp(x - max)), with the division after the product.

    The unnormalized exponentials use all 8 bits of their codes in every row, and one division
    for each output row replaces one for each score. A softmax that something else reads stays.
    """
    for node in graph:
        if node.op is not OpKind.SOFTMAX:
            continue
        readers = graph.consumers(node.name)
        if not readers or node.name in graph.outputs.values():
            continue
        if all(r.op is OpKind.MATMUL and r.inputs[0] == node.name for r in readers):
            node.op = OpKind.EXP
            for reader in readers:
                reader.op = OpKind.NORMALIZED_MATMUL
