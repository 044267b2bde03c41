"""Attention as torch calls it, spelled out.

scaled_dot_product_attention(q, k, v, mask)  ->  softmax((q @ k.T) * factor + mask) @ v
"""

from typing import Any

import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.offsets import HIDDEN
from vitq.quantization.graph.operands import FxNode, Walk
from vitq.quantization.graph.spellings.registry import arguments, spelling


@spelling("scaled_dot_product_attention")
def attention(w: Walk, node: FxNode) -> Operand:
    """Permute, matmul, scale, add what is masked, softmax, matmul."""
    query, key, value, mask, dropout, causal, factor, grouped = arguments(
        node, query=None, key=None, value=None, attn_mask=None, dropout_p=0.0, is_causal=False,
        scale=None, enable_gqa=False,
    )  # fmt: skip
    if dropout:
        raise Refusal("attention with dropout")
    q, k, v = w.x(query), w.x(key), w.x(value)
    if grouped:
        k, v = (_repeated(w, x, q.shape[-3]) for x in (k, v))
    axes = [*range(k.rank - 2), k.rank - 1, k.rank - 2]
    scores = w.build.matmul(q, w.build.permute(k, axes, "key_t"), "scores")
    number = float(torch.tensor(float(q.shape[-1]) ** -0.5 if factor is None else factor))
    if number <= 0:
        raise Refusal(f"attention with scale {number:g}")
    attrs = {"factor": number}
    scores = w.build.rowwise(OpKind.SCALE, scores, attrs, suffix="scaled")
    bias = _bias(w, mask, (q.shape[-2], k.shape[-2]) if causal else None)
    if bias is not None:
        scores = w.build.add(scores, bias)
    weights = w.build.rowwise(OpKind.SOFTMAX, scores, suffix="softmax")
    return w.build.matmul(weights, v)


def _repeated(w: Walk, x: Operand, heads: int) -> Operand:
    """Repeat the heads of keys or values that several queries share."""
    axis = x.rank - 3
    count = heads // x.shape[axis]
    return w.build.take(x, axis, [i for i in range(x.shape[axis]) for _ in range(count)])


def _bias(w: Walk, mask: Any, causal: tuple[int, int] | None) -> Operand | None:
    """Return what is added to the scores; None where nothing is."""
    if causal is not None:
        seen = torch.ones(causal, dtype=torch.bool).tril()
        return w.build.constant(torch.where(seen, 0.0, HIDDEN).numpy(), "causal")
    if mask is None:
        return None
    if not w.fixed.is_fixed(mask):
        return w.x(mask)
    whole = w.fixed.value(mask)
    if w.fixed.is_all(mask, 1 if whole.dtype == torch.bool else 0):
        return None
    value = w.tensor(mask)
    if value is None:
        raise Refusal("attention with a mask that differs between pictures")
    if value.dtype != torch.bool and bool((value >= HIDDEN).all()):
        return w.alike(mask)
    added = torch.where(value, 0.0, HIDDEN) if value.dtype == torch.bool else value
    constant = w.build.constant(added.clamp_min(HIDDEN).numpy(), "mask")
    _, axis = shape_at_one(mask.meta["val"])
    return constant if axis is not None and constant.shape[axis] == 1 else w.each(constant, axis)


@spelling("softmax", "_softmax")
def softmax(w: Walk, node: FxNode) -> Operand:
    """Softmax over one axis, which is made the last one."""
    x = w.x(node.args[0])
    axis = node.args[1] % x.rank
    order = [i for i in range(x.rank) if i != axis] + [axis]
    moved = w.build.rowwise(OpKind.SOFTMAX, w.build.permute(x, order))
    return w.build.permute(moved, [order.index(i) for i in range(x.rank)])
