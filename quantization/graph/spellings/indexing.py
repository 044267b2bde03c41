"""Indices that no picture decides: they become `take`."""

from typing import Any

import numpy as np
import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.operands import FxNode, Walk
from vitq.quantization.graph.spellings.registry import arguments, spelling


@spelling("roll")
def roll(w: Walk, node: FxNode) -> Operand:
    """Move along axes; what leaves at one end enters at the other."""
    _, shifts, axes = arguments(node, x=None, shifts=None, dims=())
    x = w.x(node.args[0])
    shifts, axes = w.plain(shifts), w.plain(axes)
    if not axes:
        raise Refusal("roll over all axes at once")
    for shift, axis in zip(shifts, axes, strict=True):
        size = x.shape[axis]
        if shift % size:
            x = w.build.take(x, axis, [(i - shift) % size for i in range(size)])
    return x


@spelling("flip")
def flip(w: Walk, node: FxNode) -> Operand:
    """Axes backwards."""
    x = w.x(node.args[0])
    for axis in node.args[1]:
        x = w.build.take(x, axis, range(x.shape[axis])[::-1])
    return x


@spelling("index_select")
def index_select(w: Walk, node: FxNode) -> Operand:
    """Take indices of one axis."""
    return w.build.take(w.x(node.args[0]), node.args[1], _indices(w, node.args[2]).tolist())


def _indices(w: Walk, arg: Any) -> torch.Tensor:
    found = w.tensor(arg)
    if found is None or found.is_floating_point():
        raise Refusal("index that depends on the picture")
    if found.dtype == torch.bool:
        raise Refusal("index by a mask: use the indices where it is true")
    return found


@spelling("index")
def index(w: Walk, node: FxNode) -> Operand:
    """Index neighbouring axes by constant tensors: one axis of all their combinations."""
    x, args = w.x(node.args[0]), list(node.args[1])
    axes = [axis for axis, arg in enumerate(args) if arg is not None]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise Refusal("index of axes that are no neighbours")
    tensors = [_indices(w, args[axis]) for axis in axes]
    sizes = x.shape[axes[0] : axes[-1] + 1]
    many = np.broadcast_arrays(
        *(np.asarray(tensor) % n for tensor, n in zip(tensors, sizes, strict=True))
    )
    flat = np.ravel_multi_index([part.ravel() for part in many], sizes)
    first, batch = axes[0], x.batch_axis
    if batch is not None and batch >= first:
        if batch < first + len(axes):
            raise Refusal("an operator along the pictures of a batch")
        batch -= len(axes) - 1
    merged = (*x.shape[:first], int(np.prod(sizes)), *x.shape[first + len(axes) :])
    x = w.build.take(w.build.reshape(x, merged, batch), first, flat.tolist())
    return w.build.reshape(x, *shape_at_one(node.meta["val"]))


@spelling("unfold")
def unfold(w: Walk, node: FxNode) -> Operand:
    """Windows of one axis, (..., count, ..., size): ``Tensor.unfold``."""
    x, (axis, size, step) = w.x(node.args[0]), node.args[1:4]
    axis %= x.rank
    starts = range(0, x.shape[axis] - size + 1, step)
    x = w.build.take(x, axis, [start + i for start in starts for i in range(size)])
    batch = x.batch_axis
    batch = batch if batch is None else batch + (batch > axis)
    shape = (*x.shape[:axis], len(starts), size, *x.shape[axis + 1 :])
    x = w.build.reshape(x, shape, batch)
    order = [a for a in range(x.rank) if a != axis + 1]
    return w.build.permute(x, [*order, axis + 1])
