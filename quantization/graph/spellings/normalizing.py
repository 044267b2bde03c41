"""Norms: LayerNorm and RMSNorm over the last axes, GroupNorm of one group, batch norm."""

from typing import Any

import numpy as np

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
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
    size = int(np.prod(a.shape[1:]))
    flat = w.build.reshape(a, (a.shape[0], size), a.batch_axis)
    each = int(np.prod(a.shape[2:]))
    scale, shift = w.tensor(gamma), w.tensor(beta)
    params = {
        "gamma": w.build.tensor(
            np.ones(size) if scale is None else np.repeat(scale.detach().numpy(), each), "gamma"
        ),
        "beta": w.build.tensor(
            np.zeros(size) if shift is None else np.repeat(shift.detach().numpy(), each), "beta"
        ),
    }
    found = w.build.rowwise(OpKind.LAYER_NORM, flat, {"eps": float(eps)}, params)
    return w.build.reshape(found, a.shape, a.batch_axis)


@spelling("batch_norm")
def batch_norm(w: Walk, node: FxNode) -> Operand:
    """Scale and shift: x * a + b for each channel, with the running mean and variance."""
    x, gamma, beta, mean, variance, training, _, eps = arguments(node, x=0, weight=None, bias=None,
        mean=None, var=None, training=False, momentum=0.1, eps=1e-5)[:8]  # fmt: skip
    if training:
        raise Refusal("batch_norm in training mode")
    found = [w.tensor(arg) for arg in (gamma, beta, mean, variance)]
    centre, spread = found[2], found[3]
    if centre is None or spread is None:
        raise Refusal("batch_norm in training mode")
    a = w.x(x)
    scale = (spread.detach().double() + eps).rsqrt()
    scale = scale if found[0] is None else scale * found[0].detach().double()
    shift = -centre.detach().double() * scale
    shift = shift if found[1] is None else shift + found[1].detach().double()
    wide = (-1, *(1,) * (a.rank - 2))
    product = w.build.constant(scale.float().reshape(wide).numpy(), "bn_scale")
    addend = w.build.constant(shift.float().reshape(wide).numpy(), "bn_shift")
    return w.build.add(w.build.multiply(a, product), addend)
