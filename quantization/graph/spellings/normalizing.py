"""Norms: LayerNorm and RMSNorm over the last axes, GroupNorm, batch norm."""

from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.int_layernorm import MAX_CHANNELS
from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.folding import affine_channels
from vitq.quantization.graph.spellings.pooling import over
from vitq.quantization.graph.spellings.registry import arguments, spelling

ROLES = ("gamma", "beta")


def _flat(w: Walk, arg: Any, size: int, otherwise: float, role: str) -> str:
    """Return the key of a norm's vector; where there is none, of a constant one."""
    if arg is None:
        return w.build.tensor(np.full(size, otherwise), role)
    key = w.key(arg)
    if w.build.tensors[key].ndim == 1:
        return key
    return w.build.tensor(w.build.tensors[key].reshape(-1), role)


@spelling("layer_norm", "rms_norm")
def layer_norm(w: Walk, node: FxNode) -> Operand:
    """Norm over the last axes, which are made one."""
    x, axes = w.x(node.args[0]), len(node.args[1])
    size = int(np.prod(x.shape[x.rank - axes :]))
    flat = w.build.reshape(x, (*x.shape[: x.rank - axes], size), x.batch_axis)
    if name_of(node) == "layer_norm":
        _, _, gamma, beta, eps = arguments(node, x=0, shape=0, weight=None, bias=None, eps=1e-5)[:5]
        params = {
            "gamma": _flat(w, gamma, size, 1.0, "gamma"),
            "beta": _flat(w, beta, size, 0.0, "beta"),
        }
        found = w.build.rowwise(OpKind.LAYER_NORM, flat, {"eps": float(eps)}, params)
    else:
        _, _, gamma, eps = arguments(node, x=0, shape=0, weight=None, eps=None)[:4]
        params = {"gamma": _flat(w, gamma, size, 1.0, "gamma")}
        eps = float(np.finfo(np.float32).eps) if eps is None else float(eps)
        found = w.build.rowwise(OpKind.RMS_NORM, flat, {"eps": eps}, params)
    return w.build.reshape(found, x.shape, x.batch_axis)


@spelling("group_norm")
def group_norm(w: Walk, node: FxNode) -> Operand:
    """Norm groups of channels over all positions: rows of a LayerNorm, or several operators."""
    x, groups, gamma, beta, eps = arguments(node, x=0, n=1, weight=None, bias=None, eps=1e-5)[:5]
    a = w.x(x)
    channels, each = a.shape[1], int(np.prod(a.shape[2:]))
    values = []
    for arg, otherwise in ((gamma, 1.0), (beta, 0.0)):
        found = w.tensor(arg)
        values.append(np.full(channels, otherwise) if found is None else found.detach().numpy())
    if groups > 1 or each * channels > MAX_CHANNELS:
        return _in_parts(w, a, groups, values, float(eps))
    last = w.build.channels_last(a) if a.rank == 4 else a
    flat = w.build.reshape(last, (a.shape[0], each * channels), a.batch_axis)
    whole = [np.tile(v, each) if a.rank == 4 else np.repeat(v, each) for v in values]
    params = {role: w.build.tensor(v, role) for role, v in zip(ROLES, whole, strict=True)}
    normed = w.build.rowwise(OpKind.LAYER_NORM, flat, {"eps": float(eps)}, params)
    normed = w.build.reshape(normed, last.shape, last.batch_axis)
    return w.build.channels_first(normed) if a.rank == 4 else normed


def _in_parts(w: Walk, x: Operand, groups: int, values: list[FloatArray], eps: float) -> Operand:
    """Norm (N, C, ...) by operators of their own: rows may have any number of elements.

    y = x - mean(x),  y (gamma / sqrt(mean(y y) + eps)) + beta

    Each mean is taken over the positions, then over a group's channels; what is in brackets has one
    value for each picture and channel.
    """
    own = x.shape[1] // groups
    order = [0, *range(2, x.rank), 1]
    last = w.build.channels_last(x) if x.rank == 4 else w.build.permute(x, order)
    positions = int(np.prod(x.shape[2:]))
    split = w.build.reshape(last, (x.shape[0], positions, groups, own), last.batch_axis)
    mean = _mean_of_groups(w, split)
    centred = w.build.add(split, w.build.times(mean, -1.0))
    square = _mean_of_groups(w, w.build.multiply(centred, centred))
    spread = w.build.add(square, w.build.constant(eps, "eps"))
    gamma, beta = (v.reshape(1, 1, groups, own) for v in values)
    inverse = w.build.pointwise(spread, "rsqrt")
    if np.any(gamma != 1):
        wide = w.build.expand(inverse, (*inverse.shape[:3], own), inverse.batch_axis)
        inverse = w.build.multiply(wide, w.build.constant(gamma, "gamma"))
    found = w.build.multiply(centred, inverse)
    if np.any(beta):
        found = w.build.add(found, w.build.constant(beta, "beta"))
    found = w.build.reshape(found, last.shape, last.batch_axis)
    if x.rank == 4:
        return w.build.channels_first(found)
    return w.build.permute(found, [order.index(axis) for axis in range(x.rank)])


def _mean_of_groups(w: Walk, x: Operand) -> Operand:
    """Mean of (N, positions, groups, channels of one) over positions and channels."""
    return over(w, OpKind.MEAN, over(w, OpKind.MEAN, x, [1], True), [3], True)


@spelling("batch_norm")
def batch_norm(w: Walk, node: FxNode) -> Operand:
    """Scale and shift each channel by constants, in the layer before it where one is."""
    x, gamma, beta, mean, variance, training, _, eps = arguments(node, x=0, weight=None, bias=None,
        mean=None, var=None, training=False, momentum=0.1, eps=1e-5)[:8]  # fmt: skip
    if training:
        raise Refusal("batch_norm in training mode")
    found = [w.tensor(arg) for arg in (gamma, beta, mean, variance)]
    centre, spread = found[2], found[3]
    if centre is None or spread is None:
        raise Refusal("batch_norm in training mode")
    scale = (spread.detach().double() + eps).rsqrt()
    scale = scale if found[0] is None else scale * found[0].detach().double()
    shift = -centre.detach().double() * scale
    shift = shift if found[1] is None else shift + found[1].detach().double()
    return affine_channels(w, x, 1, scale.numpy(), shift.numpy())
