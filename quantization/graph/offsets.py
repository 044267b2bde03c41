"""Constants added to attention scores: position biases and masks (`OpKind.OFFSET`).

    softmax(view(add(view(add(scale(q @ k), bias)), mask)))
 -> softmax(view(offset(view(offset(scale(q @ k), bias)), mask)))

An addition of two activations is quantized; an offset is not: its constant is rounded to the
scores' own step and added to their accumulators (`numerics.offset`). It is found by climbing from
each softmax through scale, layout and other offsets.

A constant that is repeated for each picture (a mask of B * nW windows) is stored once; the scores
are viewed as (B, nW, ...) around it.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.offset import masked
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.moving import moved
from vitq.quantization.graph.origins import label_of

HIDES = -16.0
"""A constant this low is a mask: what it hides must weigh nothing, whatever the codes are."""
HIDDEN = -1e4
"""What is added to a score that must not be seen: float32's exp(-10000) is 0, as of -inf. A row of
these leaves nothing: what it gives depends on how the model spells its mask."""


class Fixed(NamedTuple):
    """A value that no picture decides.

    Attributes:
        value: at batch 1.
        batch_axis: along which it is repeated for each picture; None where it is not.
    """

    value: FloatArray
    batch_axis: int | None


def fold_offsets(graph: Graph) -> None:
    """Turn additions of constants to attention scores into offsets.

    Args:
        graph: float; edited in place. Its function stays the same.

    Raises:
        VitqError: if a constant holds NaN or +Inf, or hides every key from a query.
    """
    for node in graph:
        if node.op is OpKind.SOFTMAX:
            _fold_above(graph, node)
    graph.remove_dead()


def _fold_above(graph: Graph, softmax: Node) -> None:
    node = graph.operand(softmax)
    while len(graph.consumers(node.name)) == 1 and node.name not in graph.outputs.values():
        if node.op is OpKind.ADD:
            above = _offset(graph, node)
            if above is None:
                return
            node = above
        elif node.op in LAYOUT_OPS or node.op in (OpKind.SCALE, OpKind.OFFSET):
            node = graph.operand(node)
        else:
            return


def _offset(graph: Graph, add: Node) -> Node | None:
    """Turn one addition into an offset; returns what it adds to, None where it stays."""
    for index in (1, 0):
        x, fixed = graph.operand(add, 1 - index), fixed_value(graph, add.inputs[index])
        if fixed is None or x.shape != add.shape or x.batch_axis is None:
            continue
        try:
            fixed = Fixed(masked(fixed.value), fixed.batch_axis)
        except VitqError as error:
            raise VitqError(f"{label_of(add)}: {error}") from error
        if (fixed.value <= HIDDEN).all(axis=-1).any():
            raise VitqError(
                f"{label_of(add)}: the mask hides every key from a query, for which PyTorch gives "
                "0, NaN or a plain mean: let each query see one key at least"
            )
        if fixed.batch_axis is None:
            add.op, add.inputs = OpKind.OFFSET, (x.name,)
            graph.set_param(add, "value", fixed.value)
            return x
        return x if _repeated(graph, add, x, fixed) else None
    return None


def _repeated(graph: Graph, add: Node, x: Node, fixed: Fixed) -> bool:
    """Add a constant that each picture has anew; False where it lies along another axis."""
    value, axis = fixed.value, fixed.batch_axis
    assert axis is not None and x.batch_axis is not None
    if axis + len(x.shape) - value.ndim != x.batch_axis:
        return False
    at = x.batch_axis
    if value.shape[axis] not in (1, x.shape[at]):
        return False
    shape = (*x.shape[:at], 1, *x.shape[at:])
    split = Node(f"{add.name}.pictures", OpKind.RESHAPE, (x.name,), shape, at, module=add.module)
    inner = Node(f"{add.name}.offset", OpKind.OFFSET, (split.name,), shape, at, module=add.module)
    graph.insert_after(x.name, split)
    graph.insert_after(split.name, inner)
    dims = (*value.shape[:axis], 1, *value.shape[axis:])
    graph.set_param(inner, "value", value.reshape(dims))
    add.op, add.inputs = OpKind.RESHAPE, (inner.name,)
    return True


def fixed_value(graph: Graph, name: str) -> Fixed | None:
    """Return the value of constants, their sums and layout; None for what a picture decides."""
    node = graph.nodes[name]
    if node.op is OpKind.CONSTANT:
        return Fixed(graph.real(node, "value"), None)
    if node.op not in LAYOUT_OPS and node.op is not OpKind.ADD:
        return None
    found = [fixed_value(graph, source) for source in node.inputs]
    above = [value for value in found if value is not None]
    if len(above) < len(found):
        return None
    one, two = (_moved(node, [_at(v, batch) for v in above], batch) for batch in (1, 2))
    if one is None or two is None:
        return None
    if node.batch_axis is None:
        return Fixed(one, None)
    doubled = np.concatenate([one, one], node.batch_axis)
    return Fixed(one, node.batch_axis) if np.array_equal(doubled, two) else None


def _at(fixed: Fixed, batch: int) -> FloatArray:
    if fixed.batch_axis is None:
        return fixed.value
    return np.concatenate([fixed.value] * batch, fixed.batch_axis)


def _moved(node: Node, inputs: list[FloatArray], batch: int) -> FloatArray | None:
    """Run one operator; None for those that no constant needs."""
    if node.op is OpKind.ADD:
        return inputs[0] + inputs[1]
    found: FloatArray | None = moved(node, inputs[0], batch)
    return found


def is_masked(graph: Graph, node: Node) -> bool:
    """Whether a mask is added to the scores that an exponential or softmax reads."""
    source = graph.operand(node)
    while source.op in LAYOUT_OPS or source.op in (OpKind.SCALE, OpKind.OFFSET):
        if source.op is OpKind.OFFSET and float(graph.real(source, "value").min()) <= HIDES:
            return True
        source = graph.operand(source)
    return False
