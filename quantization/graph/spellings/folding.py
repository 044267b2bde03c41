"""Constant scales and shifts of channels, folded into the layer before them at trace time.

    (W x + b) a + c  =  (a W) x + (a b + c)          a, c: one number for each output channel

in float64, rounded to float32 once: exact up to that rounding. BatchNorm behind a convolution, a
depthwise one or a linear layer, LayerScale of (C, 1, 1), and one behind the other all go this way,
so that what is quantized is what runs.
"""

from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.builder import Operand
from vitq.quantization.graph.graph import Node, OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of

_LAYERS = frozenset({"conv2d", "conv1d", "conv_transpose2d", "linear", "addmm", "matmul", "mm"})
_BEHIND = frozenset({"batch_norm", "mul", "mul_"})
_MOVES = frozenset({
    "reshape",
    "view",
    "flatten",
    "unflatten",
    "_unsafe_view",
    "permute",
    "transpose",
    "contiguous",
    "squeeze",
    "unsqueeze",
    "reshape_as",
    "view_as",
    "dropout",
    "clone",
})
"""Operators that keep every element; a dropout that is on was refused before."""
_SHAPES = frozenset({"reshape_as", "view_as", "expand_as", "type_as"})
"""Operators of whose last argument only the shape counts."""


def affine_channels(
    w: Walk, x: FxNode, axis: int, scale: FloatArray, shift: FloatArray | None = None
) -> Operand:
    """Return ``x * scale + shift`` along an axis.

    Args:
        w: what is known.
        x: of the program, not fixed.
        axis: of the channels.
        scale: (C,).
        shift: (C,), 0 if absent.

    Returns:
        `x` itself where its layer takes both over, else a product and a sum with constants.
    """
    a = w.x(x)
    layer = layer_behind(w, x, axis % a.rank)
    if layer is not None:
        _fold(w, layer, scale, np.zeros(len(scale)) if shift is None else shift)
        return a
    wide = (-1, *(1,) * (a.rank - 1 - axis % a.rank))
    found = w.build.multiply(a, w.build.constant(scale.reshape(wide), "channel_scale"))
    if shift is None:
        return found
    return w.build.add(found, w.build.constant(shift.reshape(wide), "channel_shift"))


def layer_behind(w: Walk, x: FxNode, axis: int) -> Node | None:
    """Return the layer whose output channels lie along an axis of x, if nothing else reads it."""
    source = x
    while name_of(source) in _MOVES and _readers(source) == 1:
        source = source.args[0]
    if _readers(source) != 1 or name_of(source) not in _LAYERS | _BEHIND:
        return None
    node = w.build.nodes[w.x(x).name]
    while node.op in (OpKind.RESHAPE, OpKind.PERMUTE):
        inner = w.build.nodes[node.inputs[0]]
        found = _axis_before(node, inner, axis)
        if found is None:
            return None
        node, axis = inner, found
    is_channel = axis == len(node.shape) - 1
    return node if node.op in (OpKind.LINEAR, OpKind.DEPTHWISE) and is_channel else None


def _readers(x: FxNode) -> int:
    """Count what reads a tensor's elements."""
    return sum(
        name_of(user) != "sym_size" and (name_of(user) not in _SHAPES or user.args[0] is x)
        for user in x.users
    )


def _axis_before(node: Node, inner: Node, axis: int) -> int | None:
    """Return where an axis was before a layout operator; None if it was none alone."""
    if node.op is OpKind.PERMUTE:
        return int(node.attrs["axes"][axis])
    if axis == len(node.shape) - 1:
        return len(inner.shape) - 1 if inner.shape[-1] == node.shape[-1] else None
    behind = np.prod(node.shape[axis + 1 :], dtype=np.int64)
    for i, size in enumerate(inner.shape):
        if size == node.shape[axis] and np.prod(inner.shape[i + 1 :], dtype=np.int64) == behind:
            return i
    return None


def _fold(w: Walk, layer: Node, scale: FloatArray, shift: FloatArray) -> None:
    """Scale and shift a layer's results; tensors that others read stay as they are."""
    values: dict[str, Any] = {
        role: w.build.tensors[layer.params[role]].astype(np.float64) for role in ("weight", "bias")
    }
    wide = scale.reshape(-1, *(1,) * (values["weight"].ndim - 1))
    layer.params["weight"] = w.build.tensor(values["weight"] * wide, "weight")
    layer.params["bias"] = w.build.tensor(values["bias"] * scale + shift, "bias")
