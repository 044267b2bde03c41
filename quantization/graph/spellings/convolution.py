"""Convolutions: patches, and others as a linear layer over the windows that they read.

patches (stride = kernel)   conv2d
kernel 1                    permute, linear, permute
others                      pad, take (rows and columns of all windows), reshape, permute,
                            linear, permute
"""

from typing import Any

import numpy as np

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.products import affine
from vitq.quantization.graph.spellings.registry import arguments, spelling


@spelling("conv2d")
def conv2d(w: Walk, node: FxNode) -> Operand:
    """Return a convolution of one group."""
    x, weight, bias, stride, padding, dilation, groups = arguments(node, x=0, weight=0, bias=None,
        stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1)[:7]  # fmt: skip
    params = affine(w, weight, bias)
    a = w.x(x)
    kernel = list(w.build.tensors[params["weight"]].shape[2:])
    if groups != 1:
        raise Refusal(f"conv2d of {groups} groups with kernel {kernel}")
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    size = a.shape[2:]
    if dilation == [1, 1] and kernel == stride and padding == [0, 0] and kernel[0] == kernel[1]:
        if kernel != [1, 1]:
            whole = [n // kernel[0] * kernel[0] for n in size]
            for axis in (0, 1):
                a = w.build.slice(a, 2 + axis, 0, whole[axis])
            outer = (a.shape[0], w.build.tensors[params["weight"]].shape[0])
            shape = (*outer, *(n // kernel[0] for n in whole))
            return w.build.node(OpKind.CONV2D, (a,), shape, a.batch_axis, None, params)
    pads = _pads(padding, kernel, dilation)
    rows = _windows(w, w.build.pad(a, [(0, 0), (0, 0), *pads]), kernel, stride, dilation)
    value = w.build.tensors[params["weight"]]
    flat = params | {"weight": w.build.tensor(value.reshape(value.shape[0], -1), "weight")}
    return w.build.permute(w.build.linear(rows, flat), [0, 3, 1, 2])


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
    """Return what each output position reads: (N, H', W', C * kernel)."""
    counts = []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        starts = range(0, x.shape[2 + 2 * axis] - reach + 1, stride[axis])
        taps = [start + dilation[axis] * i for start in starts for i in range(kernel[axis])]
        x = w.build.take(x, 2 + 2 * axis, taps)
        counts.append(len(starts))
        place = 2 + 2 * axis
        shape = (*x.shape[:place], len(starts), kernel[axis], *x.shape[place + 1 :])
        x = w.build.reshape(x, shape, x.batch_axis)
    x = w.build.permute(x, [0, 2, 4, 1, 3, 5])
    size = int(np.prod(x.shape[3:]))
    return w.build.reshape(x, (x.shape[0], *counts, size), x.batch_axis)


@spelling("im2col")
def im2col(w: Walk, node: FxNode) -> Operand:
    """Return windows as columns, (N, C * kernel, L): ``F.unfold``."""
    x, kernel, dilation, padding, stride = (
        arg if i == 0 else _pair(arg) for i, arg in enumerate(node.args)
    )
    a = w.build.pad(w.x(x), [(0, 0), (0, 0), *_pads(padding, kernel, dilation)])
    rows = _windows(w, a, kernel, stride, dilation)
    flat = (rows.shape[0], rows.shape[1] * rows.shape[2], rows.shape[3])
    return w.build.permute(w.build.reshape(rows, flat, rows.batch_axis), [0, 2, 1])


@spelling("conv1d", "conv3d", "conv_transpose2d")
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
