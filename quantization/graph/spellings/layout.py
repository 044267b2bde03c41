"""Operators that move elements: views, permutations, parts, repetitions, padding."""

import math
from typing import Any

import numpy as np
import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.registry import arguments, spelling

LOWEST = "lowest"
"""What is known (`Walk.pending`) of a map with -inf around it: the map, its sides before, after."""


@spelling(
    "reshape",
    "view",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "_unsafe_view",
    "view_as",
    "reshape_as",
)
def reshape(w: Walk, node: FxNode) -> Operand:
    """Other axes, the same order."""
    x = w.x(node.args[0])
    shape, batch = shape_at_one(node.meta["val"])
    if int(np.prod(shape)) != int(np.prod(x.shape)):
        raise Refusal("reshape that mixes the pictures of a batch")
    return w.build.node(OpKind.RESHAPE, (x,), shape, batch)


@spelling(
    "contiguous",
    "clone",
    "alias",
    "detach",
    "detach_",
    "lift_fresh_copy",
    "_to_copy",
    "to",
    "type_as",
    "float",
    "requires_grad_",
)
def identity(w: Walk, node: FxNode) -> Operand | None:
    """Return what is the same tensor; of a norm's root, what is known of it."""
    if node.args[0] in w.pending:
        w.pending[node] = w.pending[node.args[0]]
        return None
    kind = node.meta["val"].dtype
    if kind not in (torch.float32, torch.float64):
        raise Refusal(f"{name_of(node)} to {kind}")
    return w.x(node.args[0])


@spelling("dropout", "feature_dropout", "alpha_dropout")
def dropout(w: Walk, node: FxNode) -> Operand:
    """Nothing, in eval mode."""
    if node.args[2] and node.args[1]:
        raise Refusal("dropout that is on in eval mode")
    return w.x(node.args[0])


@spelling("permute")
def permute(w: Walk, node: FxNode) -> Operand:
    """Axes in another order."""
    return w.build.permute(w.x(node.args[0]), node.args[1])


@spelling("transpose", "swapaxes", "swapdims")
def transpose(w: Walk, node: FxNode) -> Operand:
    """Two axes swapped."""
    x = w.x(node.args[0])
    axes = list(range(x.rank))
    first, second = node.args[1] % x.rank, node.args[2] % x.rank
    axes[first], axes[second] = second, first
    return w.build.permute(x, axes)


@spelling("t", "numpy_T", "mT", "adjoint")
def matrix_transpose(w: Walk, node: FxNode) -> Operand:
    """Return the last two axes swapped; all of them for ``.T``."""
    x = w.x(node.args[0])
    axes = list(range(x.rank))
    if name_of(node) == "numpy_T":
        return w.build.permute(x, axes[::-1])
    return w.build.permute(x, axes if x.rank < 2 else [*axes[:-2], axes[-1], axes[-2]])


@spelling("movedim", "moveaxis")
def movedim(w: Walk, node: FxNode) -> Operand:
    """Put some axes elsewhere, the others in their order."""
    x = w.x(node.args[0])
    moved = [[a] if isinstance(a, int) else list(a) for a in node.args[1:3]]
    sources, places = ([axis % x.rank for axis in axes] for axes in moved)
    rest = iter(axis for axis in range(x.rank) if axis not in sources)
    at = dict(zip(places, sources, strict=True))
    return w.build.permute(x, [at[i] if i in at else next(rest) for i in range(x.rank)])


@spelling("expand", "expand_as", "broadcast_to")
def expand(w: Walk, node: FxNode) -> Operand | None:
    """Repeat along axes of extent 1."""
    if node.args[0] in w.pending:
        w.pending[node] = w.pending[node.args[0]]
        return None
    return w.build.expand(w.x(node.args[0]), *shape_at_one(node.meta["val"]))


@spelling("repeat", "tile")
def repeat(w: Walk, node: FxNode) -> Operand:
    """Whole copies, one behind the other, along each axis."""
    x, shape = w.x(node.args[0]), shape_at_one(node.meta["val"])[0]
    lead = len(shape) - x.rank
    moved = None if x.batch_axis is None else x.batch_axis + lead
    x = w.build.reshape(x, (*(1,) * lead, *x.shape), moved)
    for axis, size in enumerate(shape):
        if size != x.shape[axis]:
            x = w.build.take(x, axis, list(range(x.shape[axis])) * (size // x.shape[axis]))
    return x


@spelling("repeat_interleave")
def repeat_interleave(w: Walk, node: FxNode) -> Operand:
    """Each index of an axis several times."""
    x, (_, count, axis) = w.x(node.args[0]), arguments(node, x=None, repeats=1, dim=None)[:3]
    if not isinstance(count, int) or axis is None:
        raise Refusal("repeat_interleave in this form")
    return w.build.take(x, axis, [i for i in range(x.shape[axis]) for _ in range(count)])


@spelling("select")
def select(w: Walk, node: FxNode) -> Operand:
    """One index of an axis."""
    return w.build.select(w.x(node.args[0]), node.args[1], w.plain(node.args[2]))


@spelling("slice")
def slice_(w: Walk, node: FxNode) -> Operand:
    """Return a range of an axis, maybe with a step."""
    _, axis, start, stop, step = arguments(node, x=None, dim=0, start=None, end=None, step=1)
    x = w.x(node.args[0])
    axis %= x.rank
    if axis == x.batch_axis:
        if (start, step) in ((0, 1), (None, 1)) and shape_at_one(node.meta["val"])[0] == x.shape:
            return x
        raise Refusal("an operator along the pictures of a batch")
    start, stop = w.plain(start), w.plain(stop)
    found = range(x.shape[axis])[slice(start, stop, step)]
    return w.build.take(x, axis, found)


@spelling("copy", "fill", "zero")
def copy(w: Walk, node: FxNode) -> Operand:
    """Return what is written over a tensor, repeated to its shape."""
    shape, batch = shape_at_one(node.meta["val"])
    written = node.args[1] if len(node.args) > 1 else 0.0
    return w.build.expand(w.alike(written), shape, batch)


@spelling("narrow")
def narrow(w: Walk, node: FxNode) -> Operand:
    """Return a range of an axis."""
    x, (axis, start, length) = w.x(node.args[0]), w.plain(node.args[1:4])
    return w.build.slice(x, axis, start, start + length)


@spelling(
    "unbind", "chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"
)
def parts(w: Walk, node: FxNode) -> None:
    """Nothing to do: the parts that are read become selects or slices."""
    w.pending[node] = ("split",)


@spelling("getitem")
def getitem(w: Walk, node: FxNode) -> Operand:
    """Return a part of what several results come from."""
    source, index = node.args
    kind, *known = w.pending[source]
    if kind == "parts":
        found: Operand = known[0][index]
        return found
    if kind == "graph":
        return w.x(known[0][index])
    if kind == "result":
        return _only_first(known[0], index, source)
    x = w.x(source.args[0])
    axis = (arguments(source, x=None, size=1, dim=0)[2] if name_of(source) != "unbind"
            else arguments(source, x=None, dim=0)[1]) % x.rank  # fmt: skip
    if name_of(source) == "unbind":
        return w.build.select(x, axis, index)
    sizes = [shape_at_one(part)[0][axis] for part in source.meta["val"]]
    start = sum(sizes[:index])
    return w.build.slice(x, axis, start, start + sizes[index])


def _only_first(x: Operand, index: int, source: FxNode) -> Operand:
    if index != 0:
        raise Refusal(f"result {index} of {name_of(source)}")
    return x


@spelling("cat", "concat", "concatenate")
def concat(w: Walk, node: FxNode) -> Operand:
    """Put tensors one behind the other."""
    args, axis = arguments(node, tensors=None, dim=0)
    filled = [arg for arg in args if 0 not in shape_at_one(arg.meta["val"])[0]]
    found = [w.x(arg) for arg in filled]
    return w.build.concat(found, axis)


@spelling("stack")
def stack(w: Walk, node: FxNode) -> Operand:
    """Put tensors one behind the other along a new axis."""
    args, axis = arguments(node, tensors=None, dim=0)
    axis %= len(node.meta["val"].shape)
    grown = []
    for arg in args:
        x = w.x(arg)
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        batch = x.batch_axis
        grown.append(w.build.reshape(x, shape, batch if batch is None else batch + (batch >= axis)))
    return w.build.concat(grown, axis)


@spelling("pad", "constant_pad_nd")
def pad(w: Walk, node: FxNode) -> Operand | None:
    """Put a number around, or mirrored, repeated or wrapped elements."""
    _, sides, mode, value = arguments(node, x=None, pad=(), mode="constant", value=None)
    if name_of(node) == "constant_pad_nd":
        mode, value = "constant", mode if isinstance(mode, int | float) else 0
    x, flat = w.x(node.args[0]), w.plain(sides)
    pairs = [(0, 0)] * (x.rank - len(flat) // 2)
    pairs += [(flat[i], flat[i + 1]) for i in range(len(flat) - 2, -1, -2)]
    if mode == "constant":
        if value and _is_maximum(node, value, pairs):
            w.pending[node] = (LOWEST, x, *zip(*pairs[2:], strict=True))
            return None
        return _filled(w, x, pairs, float(value)) if value else w.build.pad(x, pairs)
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            x = w.build.take(x, axis, _beyond(x.shape[axis], before, after, mode))
    return x


def _is_maximum(node: FxNode, value: float, pairs: list[tuple[int, int]]) -> bool:
    """Whether a pad only puts what is smaller than all around a map whose maxima are taken."""
    is_map = len(pairs) == 4 and not any(side for pair in pairs[:2] for side in pair)
    plain = all(
        name_of(user) == "max_pool2d" and not any(arguments(user, x=0, k=0, s=None, padding=[0])[3])
        for user in node.users
    )
    return is_map and plain and value == -math.inf


def _filled(w: Walk, x: Operand, pairs: list[tuple[int, int]], value: float) -> Operand:
    """Put a number around, axis by axis; negative sides cut off."""
    if not math.isfinite(value):
        raise Refusal(f"pad with {value}")
    for axis, sides in enumerate(pairs):
        x = w.build.slice(x, axis, max(0, -sides[0]), x.shape[axis] - max(0, -sides[1]))
        first, last = (
            [w.build.constant(np.full((*x.shape[:axis], side, *x.shape[axis + 1 :]), value), "pad")]
            if side > 0
            else []
            for side in sides
        )
        x = w.build.concat([*first, x, *last], axis)
    return x


def _beyond(size: int, before: int, after: int, mode: str) -> list[int]:
    """Return the indices of an axis that is padded with its own elements."""
    kinds: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    found: list[int] = np.pad(np.arange(size), (before, after), mode=kinds[mode]).tolist()
    return found


@spelling("pixel_unshuffle", "pixel_shuffle")
def pixel_shuffle(w: Walk, node: FxNode) -> Operand:
    """Space into channels, or channels into space: (..., C, H, W)."""
    x, factor = w.x(node.args[0]), node.args[1]
    *lead, channels, height, width = x.shape
    n = len(lead)
    if name_of(node) == "pixel_unshuffle":
        wide = (*lead, channels, height // factor, factor, width // factor, factor)
        order = [n, n + 2, n + 4, n + 1, n + 3]
    else:
        wide = (*lead, channels // factor**2, factor, factor, height, width)
        order = [n, n + 3, n + 1, n + 4, n + 2]
    x = w.build.permute(w.build.reshape(x, wide, x.batch_axis), [*range(n), *order])
    return w.build.reshape(x, *shape_at_one(node.meta["val"]))
