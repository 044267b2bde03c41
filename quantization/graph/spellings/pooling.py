"""Means, sums and maxima over axes, pooling over windows, resizing by constant weights."""

from typing import Any

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.convolution import Geometry, tap_rows
from vitq.numerics.rows import MISSING
from vitq.quantization.graph.builder import Operand, Refusal, keep_pictures
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.convolution import depthwise
from vitq.quantization.graph.spellings.layout import LOWEST
from vitq.quantization.graph.spellings.registry import arguments, spelling


def over(w: Walk, op: OpKind, x: Operand, axes: Any, keeps: bool) -> Operand:
    """Reduce axes: several become one, behind the pictures' axis."""
    if axes is None or axes == []:
        raise Refusal(f"{op} over all axes, the pictures' too")
    gone = sorted(axis % x.rank for axis in ([axes] if isinstance(axes, int) else axes))
    for axis in gone:
        keep_pictures(x, axis)
    wide = [1 if axis in gone else size for axis, size in enumerate(x.shape)]
    narrow = [size for axis, size in enumerate(x.shape) if axis not in gone]
    kept = [axis for axis in range(x.rank) if axis not in gone]
    batch = None if x.batch_axis is None else kept.index(x.batch_axis)
    if op is OpKind.MAX and len(gone) == 1:
        found = w.build.reduce(op, x, gone[0])
    else:
        found = _middle(w, op, x, gone, kept)
    return w.build.reshape(found, wide if keeps else narrow, x.batch_axis if keeps else batch)


def _middle(w: Walk, op: OpKind, x: Operand, gone: list[int], kept: list[int]) -> Operand:
    """Reduce the middle axis of (pictures, all that go, all that stay), in the order of `kept`."""
    if not kept:
        raise Refusal(f"{op} over all axes, the pictures' too")
    first = kept[0] if x.batch_axis is None else x.batch_axis
    rest = [axis for axis in kept if axis != first]
    moved = w.build.permute(x, [first, *gone, *rest])
    sizes = [int(np.prod([x.shape[axis] for axis in axes])) for axes in (gone, rest)]
    merged = w.build.reshape(moved, (moved.shape[0], *sizes), moved.batch_axis)
    found = w.build.reduce(op, merged, 1)
    order = [first, *rest]
    found = w.build.reshape(found, [x.shape[axis] for axis in order], found.batch_axis)
    return w.build.permute(found, [order.index(axis) for axis in kept])


@spelling("mean")
def mean(w: Walk, node: FxNode) -> Operand:
    """Mean over axes."""
    _, axes, keeps = arguments(node, x=None, dim=None, keepdim=False)[:3]
    return over(w, OpKind.MEAN, w.x(node.args[0]), axes, keeps)


@spelling("sum")
def sum_(w: Walk, node: FxNode) -> Operand:
    """Mean, times how many."""
    _, axes, keeps = arguments(node, x=None, dim=None, keepdim=False)[:3]
    x = w.x(node.args[0])
    found = over(w, OpKind.MEAN, x, axes, keeps)
    count = int(np.prod(x.shape)) // int(np.prod(found.shape))
    return w.build.times(found, count) if count > 1 else found


@spelling("amax")
def amax(w: Walk, node: FxNode) -> Operand:
    """Maximum over axes."""
    _, axes, keeps = arguments(node, x=None, dim=None, keepdim=False)[:3]
    return over(w, OpKind.MAX, w.x(node.args[0]), axes, keeps)


@spelling("max")
def max_(w: Walk, node: FxNode) -> None:
    """Return the maximum over an axis, the first of two results."""
    _, axis, keeps = arguments(node, x=None, dim=None, keepdim=False)[:3]
    if not isinstance(axis, int):
        raise Refusal("max in this form")
    w.pending[node] = ("result", over(w, OpKind.MAX, w.x(node.args[0]), axis, keeps))


@spelling("adaptive_avg_pool2d", "adaptive_avg_pool1d")
def adaptive(w: Walk, node: FxNode) -> Operand:
    """Mean of windows that cover all; of unequal ones, constant weights from each side."""
    x, sizes = w.x(node.args[0]), w.plain(node.args[1])
    sizes = [sizes] if isinstance(sizes, int) else sizes
    outer = x.shape[-len(sizes) :]
    if not any(n % size for n, size in zip(outer, sizes, strict=True)):
        kernel = [n // size for n, size in zip(outer, sizes, strict=True)]
        return windows(w, OpKind.MEAN, x, kernel)
    across = _means(outer[-1], sizes[-1]).T
    return _weighted(w, x, _means(outer[0], sizes[0]) if len(sizes) == 2 else None, across)


@spelling("adaptive_max_pool2d")
def adaptive_max(w: Walk, node: FxNode) -> None:
    """Maximum of equal windows that cover all, the first of two results."""
    x, sizes = w.x(node.args[0]), w.plain(node.args[1])
    outer = x.shape[-2:]
    if any(n % size for n, size in zip(outer, sizes, strict=True)):
        raise Refusal(f"adaptive_max_pool2d of {list(outer)} to {sizes}")
    kernel = [n // size for n, size in zip(outer, sizes, strict=True)]
    w.pending[node] = ("result", windows(w, OpKind.MAX, x, kernel))


def _means(size: int, count: int) -> FloatArray:
    """Return the weights (count, size) of adaptive means: PyTorch's windows, which may overlap."""
    found = np.zeros((count, size))
    for i in range(count):
        first, last = i * size // count, -(-(i + 1) * size // count)
        found[i, first:last] = 1 / (last - first)
    return found


def windows(w: Walk, op: OpKind, x: Operand, kernel: list[int]) -> Operand:
    """Reduce windows of the last axes that touch and do not overlap; inside, channels are last."""
    is_map = x.rank == 4 and len(kernel) == 2
    a = w.build.channels_last(x) if is_map else x
    lead = 1 if is_map else x.rank - len(kernel)
    split: list[int] = list(a.shape[:lead])
    for n, k in zip(a.shape[lead : lead + len(kernel)], kernel, strict=True):
        split += [n // k, k]
    split += a.shape[lead + len(kernel) :]
    axes = [lead + 1 + 2 * i for i in range(len(kernel))]
    found = over(w, op, w.build.reshape(a, split, a.batch_axis), axes, False)
    return w.build.channels_first(found) if is_map else found


@spelling("avg_pool1d", "max_pool1d")
def pool_tokens(w: Walk, node: FxNode) -> Operand:
    """Mean or maximum of windows; only of those that do not overlap."""
    x, kernel, stride, padding = arguments(node, x=0, kernel=1, stride=None, padding=0)[:4]
    kernel, stride, padding = ([v] if isinstance(v, int) else list(v or []) for v in
                               (kernel, stride, padding))  # fmt: skip
    stride, a = (stride or kernel), w.x(x)
    if stride != kernel or any(padding) or a.shape[-1] % kernel[0]:
        name = name_of(node)
        raise Refusal(f"{name} with kernel {kernel}, stride {stride}, padding {padding}")
    return windows(w, OpKind.MEAN if name_of(node) == "avg_pool1d" else OpKind.MAX, a, kernel)


@spelling("avg_pool2d")
def average(w: Walk, node: FxNode) -> Operand:
    """Mean of windows: of those that overlap or reach outside, a depthwise convolution.

    Its weights are all equal, so that their codes are exact. Where padding is not counted, a
    constant that is 1 inside of the map makes up for it.
    """
    x, kernel, stride, padding, _, counts_all, divisor = arguments(node, x=0, kernel=1, stride=None,
        padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None)  # fmt: skip
    a, place = w.x(x), _place(kernel, stride, padding, 1)
    if _covers(a, place) and divisor is None:
        return windows(w, OpKind.MEAN, a, list(place.kernel))
    if divisor is not None:
        raise Refusal("avg_pool2d with a divisor of its own")
    channels = a.shape[1]
    weight = np.full((channels, *place.kernel), 1 / np.prod(place.kernel))
    bias = w.build.tensor(np.zeros(channels), "bias")
    found = w.build.channels_first(depthwise(w, w.build.channels_last(a), weight, bias, place))
    if counts_all or not any(place.before):
        return found
    taps = tap_rows((a.shape[2], a.shape[3]), place)
    share = taps.shape[1] / (taps != MISSING).sum(1)
    return w.build.multiply(found, w.build.constant(share.reshape(found.shape[2:]), "share"))


@spelling("max_pool2d")
def maximum(w: Walk, node: FxNode) -> Operand:
    """Maximum of windows, along one axis after the other; a tap outside repeats one inside."""
    x, kernel, stride, padding, dilation = arguments(node, x=0, kernel=1, stride=None, padding=0,
        dilation=1)[:5]  # fmt: skip
    kind, *known = w.pending.get(x, ("",))
    a = known[0] if kind == LOWEST else w.x(x)
    place = _place(kernel, stride, padding, dilation)
    if kind == LOWEST:
        place = place._replace(before=known[1], after=known[2])
    if _covers(a, place):
        return windows(w, OpKind.MAX, a, list(place.kernel))
    last = w.build.channels_last(a)
    counts = place.windows((a.shape[2], a.shape[3]))
    for axis in (0, 1):
        size, taps = last.shape[1 + axis], np.arange(place.kernel[axis]) * place.dilation[axis]
        starts = np.arange(counts[axis]) * place.stride[axis] - place.before[axis]
        rows = starts[:, None] + taps
        inside = (rows >= 0) & (rows < size)
        first = np.take_along_axis(rows, inside.argmax(1)[:, None], 1)
        last = w.build.take(last, 1 + axis, np.where(inside, rows, first).ravel().tolist())
        split = (*last.shape[: 1 + axis], *rows.shape, *last.shape[2 + axis :])
        last = w.build.reshape(last, split, last.batch_axis)
        last = w.build.reduce(OpKind.MAX, last, 2 + axis)
    return w.build.channels_first(last)


def _place(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Geometry:
    """Return a pooling's windows."""
    pairs = ([v] * 2 if isinstance(v, int) else list(v) * (2 // len(v)) for v in
             (kernel, stride or kernel, padding, padding, dilation))  # fmt: skip
    return Geometry(*((first, second) for first, second in pairs))


def _covers(x: Operand, place: Geometry) -> bool:
    """Whether windows touch, do not overlap, and cover the map."""
    uneven = any(n % k for n, k in zip(x.shape[-2:], place.kernel, strict=True))
    plain = place.dilation == (1, 1) and place.before == (0, 0)
    return plain and place.stride == place.kernel and not uneven


@spelling(
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
    "_upsample_bilinear2d_aa", "upsample_nearest_exact2d", "_upsample_nearest_exact2d",
)  # fmt: skip
def resize(w: Walk, node: FxNode) -> Operand:
    """Multiply (N, C, H, W) from both sides by constant weights, or take elements."""
    x = w.x(node.args[0])
    height, width = x.shape[-2:]
    rows, columns = shape_at_one(node.meta["val"])[0][-2:]
    down = _weights(node, torch.eye(height).reshape(1, 1, height, height), (rows, height), 0)
    across = _weights(node, torch.eye(width).reshape(1, 1, width, width), (width, columns), 1)
    if "nearest" in name_of(node):
        x = w.build.take(x, x.rank - 2, down.argmax(1).tolist())
        return w.build.take(x, x.rank - 1, across.argmax(0).tolist())
    sides = (None if rows == height else down.numpy(), None if columns == width else across.numpy())
    return _weighted(w, x, *sides)


def _weighted(w: Walk, x: Operand, down: FloatArray | None, across: FloatArray | None) -> Operand:
    """Multiply the last two axes by constant weights, (H', H) and (W, W')."""
    if down is not None:
        x = w.build.matmul(w.build.constant(down, "rows"), x)
    if across is not None:
        x = w.build.matmul(x, w.build.constant(across, "columns"))
    return x


def _weights(
    node: FxNode, identity: torch.Tensor, size: tuple[int, int], axis: int
) -> torch.Tensor:
    """Return what the resizing of an identity matrix along one axis gives."""
    overload = str(node.target).rsplit(".", maxsplit=1)[-1]
    args = list(node.args)
    factors = args[-1] if overload == "vec" else None
    flags = args[2:-1] if overload == "vec" else args[2:]
    scales = None
    if factors is not None:
        scales = [factors[0] if axis == 0 else 1.0, factors[1] if axis == 1 else 1.0]
        out: torch.Tensor = node.target(identity, None, *flags, scales)
    elif overload == "vec":
        out = node.target(identity, list(size), *flags, None)
    else:
        out = node.target(identity, list(size), *flags[:1])
    return out[0, 0]
