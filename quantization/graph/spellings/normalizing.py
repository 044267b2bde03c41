"""Norms: LayerNorm and RMSNorm over the last axes, GroupNorm of one group, batch norm."""

from typing import Any

import numpy as np

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.folding import affine_channels
from vitq.quantization.graph.spellings.registry import arguments, spelling


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
    """One group over all channels and positions: a LayerNorm of all, then a scale for each."""
    x, groups, gamma, beta, eps = arguments(node, x=0, n=1, weight=None, bias=None, eps=1e-5)[:5]
    if groups != 1:
        raise Refusal(f"group_norm of {groups} groups")
    a = w.x(x)
    size, each = int(np.prod(a.shape[1:])), int(np.prod(a.shape[2:]))
    last = w.build.channels_last(a) if a.rank == 4 else a
    flat = w.build.reshape(last, (a.shape[0], size), a.batch_axis)
    params = {}
    for role, arg, otherwise in (("gamma", gamma, 1.0), ("beta", beta, 0.0)):
        found = w.tensor(arg)
        value = np.full(a.shape[1], otherwise) if found is None else found.detach().numpy()
        whole = np.tile(value, each) if a.rank == 4 else np.repeat(value, each)
        params[role] = w.build.tensor(whole, role)
    normed = w.build.rowwise(OpKind.LAYER_NORM, flat, {"eps": float(eps)}, params)
    normed = w.build.reshape(normed, last.shape, last.batch_axis)
    return w.build.channels_first(normed) if a.rank == 4 else normed


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
