"""Convolutions: patches of the picture, and others as a linear layer over the windows they read.

    the picture's patches (stride = kernel)   conv2d
    kernel 1                                  linear over the pixels of (N, H, W, C)
    one group for each channel                depthwise
    others                                    pad, take (rows and columns of all windows), reshape,
                                              permute, linear

Inside, a map is (N, H, W, C): a window's rows are whole pixels, so that its address pattern is a
table of rows (`relay_passes.lower_row_moves`), and no transposition is left between two layers
(`quantization.graph.builder.Builder.channels_last`). The arithmetic is `numerics.convolution`'s.
"""

import logging
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.convolution import Geometry
from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.geometry import geometry_attrs
from vitq.quantization.graph.graph import LAYOUT_OPS, OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.products import affine
from vitq.quantization.graph.spellings.registry import arguments, spelling

logger = logging.getLogger(__name__)


@spelling("conv2d")
def conv2d(w: Walk, node: FxNode) -> Operand:
    """Return a convolution of any kernel, stride, padding and dilation."""
    x, weight, bias, stride, padding, dilation, groups = arguments(node, x=0, weight=0, bias=None,
        stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1)[:7]  # fmt: skip
    params = affine(w, weight, bias)
    value = w.build.tensors[params["weight"]]
    a, kernel = w.x(x), list(value.shape[2:])
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    if groups == 1 and dilation == [1, 1] and kernel == stride and padding == [0, 0]:
        if kernel[0] == kernel[1] > 1 and _is_picture(w, a):
            return _patches(w, a, params)
    sides = _pads(padding, kernel, dilation)
    last = w.build.channels_last(a)
    if groups == a.shape[1] > 1 and not _is_picture(w, a):  # into a layer its mean and std fold
        before, after = zip(*sides, strict=True)
        place = Geometry(*(tuple(v) for v in (kernel, stride, before, after, dilation)))
        return w.build.channels_first(depthwise(w, last, value[:, 0], params["bias"], place))
    rows = _windows(w, w.build.pad(last, [(0, 0), *sides, (0, 0)]), kernel, stride, dilation)
    flat = _whole(value, groups).transpose(0, 2, 3, 1).reshape(len(value), -1)
    params["weight"] = w.build.tensor(flat, "weight")
    return w.build.channels_first(w.build.linear(rows, params))


def _whole(weight: FloatArray, groups: int) -> FloatArray:
    """Return the weights of all groups as those of one, with zeros between the groups."""
    if groups == 1:
        return weight
    logger.info("a convolution of %d groups is computed as one, with zeros between them", groups)
    out, own, *kernel = weight.shape
    found = np.zeros((groups, out // groups, groups, own, *kernel), weight.dtype)
    for group, part in enumerate(weight.reshape(groups, out // groups, own, *kernel)):
        found[group, :, group] = part
    return found.reshape(out, groups * own, *kernel)


def depthwise(w: Walk, x: Operand, weight: FloatArray, bias: str, place: Geometry) -> Operand:
    """Convolve each channel of (N, H, W, C) with one kernel or several, (O, i, j)."""
    batch, *size, channels = x.shape
    if len(weight) > channels:
        each = len(weight) // channels
        x = w.build.take(x, 3, [i // each for i in range(len(weight))])
    shape = (batch, *place.windows((size[0], size[1])), len(weight))
    params = {"weight": w.build.tensor(weight, "weight"), "bias": bias}
    attrs = geometry_attrs(place)
    return w.build.node(OpKind.DEPTHWISE, (x,), shape, x.batch_axis, attrs, params)


def _is_picture(w: Walk, x: Operand) -> bool:
    """Whether a tensor is the picture, moved at most."""
    node = w.build.nodes[x.name]
    while node.op in LAYOUT_OPS and node.inputs:
        node = w.build.nodes[node.inputs[0]]
    return node.op is OpKind.INPUT


def _patches(w: Walk, a: Operand, params: dict[str, str]) -> Operand:
    """Cut into patches without overlap, a linear layer of each."""
    value = w.build.tensors[params["weight"]]
    edge = value.shape[2]
    whole = [n // edge * edge for n in a.shape[2:]]
    for axis in (0, 1):
        a = w.build.slice(a, 2 + axis, 0, whole[axis])
    shape = (a.shape[0], value.shape[0], *(n // edge for n in whole))
    return w.build.node(OpKind.CONV2D, (a,), shape, a.batch_axis, None, params)


def _pair(value: Any) -> Any:
    if isinstance(value, str):
        return value
    found = [value] if isinstance(value, int) else list(value)
    return found * 2 if len(found) == 1 else found


def _pads(padding: Any, kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """Zeros before and after each of the two axes."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in whole]
    return [(p, p) for p in padding]


def _windows(
    w: Walk, x: Operand, kernel: list[int], stride: list[int], dilation: list[int]
) -> Operand:
    """Return what each output position reads of (N, H, W, C): (N, H', W', kernel * C)."""
    if kernel == stride == [1, 1]:
        return x
    counts = []
    for axis in (0, 1):
        place = 1 + 2 * axis
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        starts = range(0, x.shape[place] - reach + 1, stride[axis])
        if not starts:
            raise Refusal(f"a kernel of {kernel} beyond a map of {list(x.shape[1:3])}")
        taps = [start + dilation[axis] * i for start in starts for i in range(kernel[axis])]
        x = w.build.take(x, place, taps)
        counts.append(len(starts))
        shape = (*x.shape[:place], len(starts), kernel[axis], *x.shape[place + 1 :])
        x = w.build.reshape(x, shape, x.batch_axis)
    x = w.build.permute(x, [0, 1, 3, 2, 4, 5])
    size = int(np.prod(x.shape[3:]))
    return w.build.reshape(x, (x.shape[0], *counts, size), x.batch_axis)


@spelling("im2col")
def im2col(w: Walk, node: FxNode) -> Operand:
    """Return windows as columns, (N, C * kernel, L): ``F.unfold``."""
    x, kernel, dilation, padding, stride = (
        arg if i == 0 else _pair(arg) for i, arg in enumerate(node.args)
    )
    a = w.build.channels_last(w.x(x))
    a = w.build.pad(a, [(0, 0), *_pads(padding, kernel, dilation), (0, 0)])
    rows = _windows(w, a, kernel, stride, dilation)
    length, taps, channels = rows.shape[1] * rows.shape[2], int(np.prod(kernel)), a.shape[3]
    split = w.build.reshape(rows, (rows.shape[0], length, taps, channels), rows.batch_axis)
    columns = w.build.permute(split, [0, 3, 2, 1])
    flat = (rows.shape[0], channels * taps, length)
    return w.build.reshape(columns, flat, columns.batch_axis)


@spelling("col2im")
def col2im(w: Walk, node: FxNode) -> Operand:
    """Put columns (N, C * kernel, L) back where windows took them, and add: ``F.fold``.

    Each tap is a map of its own, spread by the stride and moved to its place.
    """
    x, size, *geometry = (arg if i == 0 else _pair(w.plain(arg)) for i, arg in enumerate(node.args))
    kernel, dilation, padding, stride = geometry
    before = (padding[0], padding[1])
    place = Geometry(*(tuple(v) for v in (kernel, stride, before, before, dilation)))
    columns = w.x(x)
    counts, taps = place.windows((size[0], size[1])), kernel[0] * kernel[1]
    channels = columns.shape[1] // taps
    split = (columns.shape[0], channels, taps, *counts)
    columns = w.build.reshape(columns, split, columns.batch_axis)
    columns = w.build.permute(columns, [0, 2, 3, 4, 1])
    total = None
    for tap in range(taps):
        part = _spread(w, w.build.select(columns, 1, tap), stride)
        sides = [(0, 0)]
        for axis, i in enumerate(divmod(tap, kernel[1])):
            first = dilation[axis] * i - padding[axis]
            sides.append((first, size[axis] - first - part.shape[1 + axis]))
        part = w.build.pad(part, [*sides, (0, 0)])
        total = part if total is None else w.build.add(total, part)
    assert total is not None
    return w.build.channels_first(total)


@spelling("conv_transpose2d")
def transposed(w: Walk, node: FxNode) -> Operand:
    """Spread the map by zeros between its pixels, and convolve it by the kernel backwards.

    Where windows touch (stride = kernel) each pixel becomes one: a linear layer and layout.
    """
    x, weight, bias, stride, padding, more, groups, dilation = arguments(node, x=0, weight=0,
        bias=None, stride=[1], padding=[0], output_padding=[0], groups=1, dilation=[1])  # fmt: skip
    stride, padding, more, dilation = (_pair(v) for v in (stride, padding, more, dilation))
    value = w.build.tensors[w.key(weight)]
    out, kernel = value.shape[1], list(value.shape[2:])
    if groups != 1:
        raise Refusal(f"conv_transpose2d of {groups} groups")
    offset = np.zeros(out) if bias is None else w.build.tensors[w.key(bias)]
    last = w.build.channels_last(w.x(x))
    if stride == kernel and padding == more == [0, 0] and dilation == [1, 1]:
        flat = value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
        params = _params(w, flat, np.tile(offset, kernel[0] * kernel[1]))
        wide = w.build.linear(last, params)
        height, width = last.shape[1:3]
        split = w.build.reshape(wide, (wide.shape[0], height, width, *kernel, out), wide.batch_axis)
        split = w.build.permute(split, [0, 1, 3, 2, 4, 5])
        grid = (wide.shape[0], height * kernel[0], width * kernel[1], out)
        return w.build.channels_first(w.build.reshape(split, grid, wide.batch_axis))
    spread = _spread(w, last, stride)
    sides = [(0, 0)]
    for axis in (0, 1):
        side = dilation[axis] * (kernel[axis] - 1) - padding[axis]
        sides.append((side, side + more[axis] + 1 - stride[axis]))
    rows = _windows(w, w.build.pad(spread, [*sides, (0, 0)]), kernel, [1, 1], dilation)
    flat = value[:, :, ::-1, ::-1].transpose(1, 2, 3, 0).reshape(out, -1)
    return w.build.channels_first(w.build.linear(rows, _params(w, flat, offset)))


def _params(w: Walk, weight: FloatArray, bias: FloatArray) -> dict[str, str]:
    return {"weight": w.build.tensor(weight, "weight"), "bias": w.build.tensor(bias, "bias")}


def _spread(w: Walk, x: Operand, stride: list[int]) -> Operand:
    """Put zeros behind each pixel of (N, H, W, C), so that they lie `stride` apart."""
    batch, height, width, channels = x.shape
    split = w.build.reshape(x, (batch, height, 1, width, 1, channels), x.batch_axis)
    sides = [(0, 0), (0, 0), (0, stride[0] - 1), (0, 0), (0, stride[1] - 1), (0, 0)]
    wide = w.build.pad(split, sides)
    grid = (batch, height * stride[0], width * stride[1], channels)
    return w.build.reshape(wide, grid, wide.batch_axis)


@spelling("conv1d", "conv3d")
def other(w: Walk, node: FxNode) -> Operand:
    """Refuse with its kernel; one of one tap is a linear layer."""
    x, weight, bias, stride, padding, _, groups = arguments(node, x=0, weight=0, bias=None,
        stride=[1], padding=[0], dilation=[1], groups=1)[:7]  # fmt: skip
    value = w.tensor(weight)
    kernel = list(value.shape[2:]) if value is not None else []
    if name_of(node) != "conv1d" or kernel != [1] or groups != 1 or _any(stride, padding):
        raise Refusal(f"{name_of(node)} with kernel {kernel}, groups {groups}")
    params = affine(w, weight, bias)
    stored = w.build.tensors[params["weight"]]
    params["weight"] = w.build.tensor(stored[:, :, 0], "weight")
    moved = w.build.permute(w.x(x), [0, 2, 1])
    return w.build.permute(w.build.linear(moved, params), [0, 2, 1])


def _any(stride: Any, padding: Any) -> bool:
    return list(stride) != [1] or padding not in ([0], "valid")
