"""Relax's own operators in NumPy; floats are float64."""

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vitq.numerics.errors import VitqError
from vitq.relay_passes.expressions import Expr, ints, shape_of
from vitq.relay_passes.reading.matching import read_dequantize, read_quantize

Array = Any
Evaluator = Callable[[Expr, list[Array]], Array]
"""Takes a call, for its attributes and result type, and its operands."""


def dequantize(call: Expr, args: list[Array]) -> Array:
    """``R.dequantize`` and ``vitq.dequantize``."""
    found = read_dequantize(call)
    assert found is not None
    centred = args[0].astype(np.float64) - found.broadcast(found.zero_point)
    return centred * found.broadcast(found.scale)


def quantize(call: Expr, args: list[Array]) -> Array:
    """``R.quantize`` and ``vitq.quantize``."""
    found = read_quantize(call)
    assert found is not None
    scale, zero_point = found.qparams.along(args[0].ndim)
    codes = np.rint(args[0] / scale.astype(np.float64)) + zero_point
    return np.clip(codes, found.qparams.qmin, found.qparams.qmax)


def _conv2d(call: Expr, args: list[Array]) -> Array:
    """Any convolution of (B, C, H, W)."""
    attrs, (x, weight) = call.attrs, args
    groups, kernel = int(attrs.groups), weight.shape[2:]
    top, left, bottom, right = ints(attrs.padding)
    (down, across), (y, z) = ints(attrs.strides), ints(attrs.dilation)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = (y * (kernel[0] - 1) + 1, z * (kernel[1] - 1) + 1)
    windows = sliding_window_view(padded, reach, axis=(2, 3))[:, :, ::down, ::across, ::y, ::z]
    parts = windows.reshape(len(x), groups, -1, *windows.shape[2:])
    found = np.einsum("bgcijpq,gncpq->bgnij", parts, weight.reshape(groups, -1, *weight.shape[1:]))
    return found.reshape(len(x), len(weight), *found.shape[3:])


def _layer_norm(call: Expr, args: list[Array]) -> Array:
    axes = ints(call.attrs.axes)
    x = args[0].astype(np.float64)
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = (centred**2).mean(axis=axes, keepdims=True)
    return centred / np.sqrt(variance + float(call.attrs.epsilon)) * args[1] + args[2]


def _softmax(call: Expr, args: list[Array]) -> Array:
    axis = int(call.attrs.axis)
    e = np.exp(args[0] - args[0].max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


_erf = np.vectorize(erf, otypes=[np.float64])


def _gelu(_: Expr, args: list[Array]) -> Array:
    return args[0] * 0.5 * (1 + _erf(args[0] / np.sqrt(2)))


def _gelu_tanh(_: Expr, args: list[Array]) -> Array:
    x = args[0]
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _reduce(function: Callable[..., Array]) -> Callable[[Expr, list[Array]], Array]:
    def run(call: Expr, args: list[Array]) -> Array:
        axes = call.attrs.axis
        axis = None if axes is None else ints(axes)
        return function(args[0], axis=axis, keepdims=bool(call.attrs.keepdims))

    return run


def slices_of(call: Expr) -> tuple[slice, ...]:
    """Return the NumPy index of a ``R.strided_slice`` call."""
    rank = len(shape_of(call.args[0]))
    index = [slice(None)] * rank
    axes, begin, end = (ints(arg) for arg in call.args[1:4])
    strides = ints(call.args[4]) if len(call.args) > 4 else (1,) * len(axes)
    for axis, first, last, step in zip(axes, begin, end, strides, strict=True):
        index[axis] = slice(first, last, step)
    return tuple(index)


def _take(call: Expr, args: list[Array]) -> Array:
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    indices = args[1] if len(args) > 1 else call.args[1].value.numpy()
    return np.take(args[0], indices.astype(np.int64), axis=axis)


def pads_of(call: Expr) -> list[tuple[int, int]]:
    """Return what a ``R.nn.pad`` call adds before and behind each axis."""
    widths = ints(call.attrs.pad_width)
    return list(zip(widths[::2], widths[1::2], strict=True))


def _pad(call: Expr, args: list[Array]) -> Array:
    if str(call.attrs.pad_mode) != "constant":
        raise VitqError(f"the interpreter does not know a pad of mode {call.attrs.pad_mode}")
    return np.pad(args[0], pads_of(call), constant_values=float(call.attrs.pad_value))


def _split(call: Expr, args: list[Array]) -> Array:
    sections = call.attrs.indices_or_sections
    axis = int(call.attrs.axis)
    parts = int(sections) if not hasattr(sections, "__len__") else list(ints(sections))
    return tuple(np.split(args[0], parts, axis=axis))


LAYOUT: dict[str, Evaluator] = {
    "relax.reshape": lambda call, a: a[0].reshape(shape_of(call)),
    "relax.flatten": lambda call, a: a[0].reshape(shape_of(call)),
    "relax.squeeze": lambda call, a: a[0].reshape(shape_of(call)),
    "relax.expand_dims": lambda call, a: a[0].reshape(shape_of(call)),
    "relax.permute_dims": lambda call, a: a[0].transpose(
        None if call.attrs.axes is None else ints(call.attrs.axes)
    ),
    "relax.strided_slice": lambda call, a: a[0][slices_of(call)],
    "relax.broadcast_to": lambda call, a: np.broadcast_to(a[0], shape_of(call)),
    "relax.concat": lambda call, a: np.concatenate(a[0], axis=int(call.attrs.axis)),
    "relax.take": _take,
    "relax.nn.pad": _pad,
    "relax.split": _split,
    "relax.astype": lambda call, a: a[0],
    "relax.shape_of": lambda _, a: a[0].shape,
    "relax.shape_to_tensor": lambda call, a: np.asarray(a[0], np.int64),
}

ELEMENTWISE: dict[str, Evaluator] = {
    "relax.add": lambda _, a: a[0] + a[1],
    "relax.subtract": lambda _, a: a[0] - a[1],
    "relax.multiply": lambda _, a: a[0] * a[1],
    "relax.divide": lambda _, a: a[0] / a[1],
    "relax.power": lambda _, a: a[0] ** a[1],
    "relax.maximum": lambda _, a: np.maximum(a[0], a[1]),
    "relax.minimum": lambda _, a: np.minimum(a[0], a[1]),
    "relax.less": lambda _, a: a[0] < a[1],
    "relax.greater": lambda _, a: a[0] > a[1],
    "relax.floor": lambda _, a: np.floor(a[0]),
    "relax.where": lambda _, a: np.where(a[0], a[1], a[2]),
    "relax.isnan": lambda _, a: np.isnan(a[0]),
    "relax.exp": lambda _, a: np.exp(a[0]),
    "relax.sqrt": lambda _, a: np.sqrt(a[0]),
    "relax.rsqrt": lambda _, a: 1 / np.sqrt(a[0]),
    "relax.tanh": lambda _, a: np.tanh(a[0]),
    "relax.erf": lambda _, a: _erf(a[0]),
    "relax.negative": lambda _, a: -a[0],
    "relax.sigmoid": lambda _, a: 1 / (1 + np.exp(-a[0])),
    "relax.log": lambda _, a: np.log(a[0]),
    "relax.abs": lambda _, a: np.abs(a[0]),
    "relax.nn.relu": lambda _, a: np.maximum(a[0], 0),
    "relax.nn.leakyrelu": lambda call, a: np.where(a[0] > 0, a[0], call.attrs.alpha * a[0]),
    "relax.clip": lambda call, a: np.clip(
        a[0], float(call.args[1].value), float(call.args[2].value)
    ),
}

FLOAT: dict[str, Evaluator] = {
    "relax.dequantize": dequantize,
    "relax.quantize": quantize,
    "relax.matmul": lambda _, a: a[0] @ a[1],
    "relax.nn.conv2d": _conv2d,
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.softmax": _softmax,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
    "relax.max": _reduce(np.max),
    "relax.sum": _reduce(np.sum),
    "relax.mean": _reduce(np.mean),
}
