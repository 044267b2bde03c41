"""Sums, products and quotients of tensors, numbers and constants."""

import math
from typing import Any

import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.offsets import HIDDEN
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings import moments
from vitq.quantization.graph.spellings.composed import compose
from vitq.quantization.graph.spellings.folding import affine_channels, layer_behind
from vitq.quantization.graph.spellings.registry import arguments, spelling


def is_tensor(arg: Any) -> bool:
    """Whether an argument is a node of the program."""
    return isinstance(arg, torch.fx.Node)


@spelling("add")
def add(w: Walk, node: FxNode) -> Operand | None:
    """Add: a + alpha * b."""
    first, second = node.args[:2]
    if moments.passes_on(w, node):
        return None
    alpha = node.kwargs.get("alpha", 1)
    if alpha == 1 and is_tensor(first) and is_tensor(second):
        for x, other in ((first, second), (second, first)):
            if _adds_nothing(w, node, x, other):
                return w.x(x)
    return plus(w, first, second, alpha)


def plus(w: Walk, first: Any, second: Any, alpha: float = 1) -> Operand:
    """Add; a constant comes second, and is multiplied by `alpha` at once."""
    if w.tensor(first) is not None and alpha == 1:
        first, second = second, first
    value = None if alpha == 1 else w.tensor(second)
    a = w.alike(first)
    if value is not None:
        return w.build.add(a, w.build.constant((alpha * value).float().numpy()))
    b = w.alike(second)
    return w.build.add(a, b if alpha == 1 else w.build.times(b, alpha))


def _adds_nothing(w: Walk, node: FxNode, x: FxNode, other: FxNode) -> bool:
    """Whether a sum is only its first term, as of scores and a mask that hides nothing."""
    if w.fixed.is_fixed(x) or not w.fixed.is_all(other, 0):
        return False
    # Sizes are compared as numbers: comparing symbols would make torch decide the batch size.
    return shape_at_one(node.meta["val"]) == shape_at_one(x.meta["val"])


@spelling("addcmul")
def addcmul(w: Walk, node: FxNode) -> Operand:
    """Add a product: a + value * b * c."""
    addend, first, second = node.args[:3]
    if w.tensor(second) is None:
        first, second = second, first
    found = w.tensor(second)
    both = w.tensor(first)
    if both is not None and found is not None:
        product = w.build.constant((both * found).float().numpy(), "product")
    elif found is not None:
        product = _by_constant(w, first, second, found)
    else:
        product = w.build.multiply(w.x(first), w.x(second))
    factor = node.kwargs.get("value", 1)
    product = product if factor == 1 else w.build.times(product, factor)
    return w.build.add(product, w.alike(addend))


@spelling("sub")
def sub(w: Walk, node: FxNode) -> Operand:
    """Subtract: a - alpha * b."""
    return plus(w, node.args[0], node.args[1], -node.kwargs.get("alpha", 1))


@spelling("rsub")
def rsub(w: Walk, node: FxNode) -> Operand:
    """Subtract the other way: b - a."""
    return plus(w, node.args[1], node.args[0], -1)


@spelling("neg", "negative")
def neg(w: Walk, node: FxNode) -> Operand:
    """-x."""
    return w.build.times(w.x(node.args[0]), -1.0)


@spelling("mul", "multiply")
def mul(w: Walk, node: FxNode) -> Operand | None:
    """Multiply: of x and its own sigmoid, a function; of a constant, a scale."""
    first, second = node.args[:2]
    if moments.passes_on(w, node):
        return None
    for x, other in ((first, second), (second, first)):
        found = w.tensor(other)
        if found is not None and w.tensor(x) is None:
            return _by_constant(w, x, other, found)
        norm = moments.normalized(w, x, other, divides=False)
        if norm is not None:
            return norm
        gate = gate_of(w, x, other)
        if gate:
            return w.build.pointwise(w.x(x), gate)
    return w.build.multiply(w.x(first), w.x(second))


GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def gate_of(w: Walk, x: Any, other: Any) -> str:
    """Return the function that x * other is: SiLU, Hardswish or QuickGELU; empty if none."""
    if not is_tensor(other) or name_of(other) not in GATES or len(other.users) != 1:
        return ""
    inner = other.args[0]
    if inner is x:
        return GATES[name_of(other)]
    if name_of(other) != "sigmoid" or not is_tensor(inner) or name_of(inner) != "mul":
        return ""
    numbers = [arg for arg in inner.args if isinstance(arg, int | float)]
    is_quick = (
        x in inner.args and len(numbers) == 1 and math.isclose(numbers[0], 1.702, rel_tol=1e-6)
    )
    return "quick_gelu" if is_quick else ""


def _by_constant(w: Walk, x: FxNode, other: Any, value: torch.Tensor) -> Operand:
    a = w.x(x)
    if value.numel() == 1 and value.ndim <= a.rank:
        return w.build.times(a, float(value))
    vector = value.shape[-1] == value.numel() == a.shape[-1] and value.ndim <= a.rank
    if is_tensor(other) and vector and not (a.batch_axis == a.rank - 1):
        key = w.key(other)
        if w.build.tensors[key].ndim != 1:
            key = w.build.tensor(value.detach().float().reshape(-1).numpy(), "value")
        return w.build.rowwise(OpKind.CHANNEL_SCALE, a, None, {"value": key})
    axis = next((i for i, size in enumerate(value.shape) if size > 1), 0) - value.ndim
    if value.shape[axis] == value.numel() == a.shape[axis] and value.ndim <= a.rank:
        if a.rank + axis != a.batch_axis and layer_behind(w, x, a.rank + axis):
            return affine_channels(w, x, axis, value.detach().double().reshape(-1).numpy())
    return w.build.multiply(a, w.alike(other))


@spelling("div", "divide", "true_divide")
def div(w: Walk, node: FxNode) -> Operand:
    """Divide: by a constant, or of x by its own norm."""
    first, second = node.args[:2]
    if node.kwargs.get("rounding_mode"):
        raise Refusal("div that rounds")
    kind, *known = w.pending.get(second, ("",)) if is_tensor(second) else ("",)
    if kind == "norm":
        return _normalized(w, first, *known)
    norm = moments.normalized(w, first, second, divides=True)
    if norm is not None:
        return norm
    found = w.tensor(second)
    if found is None and _is_softsign(first, second):
        return w.build.pointwise(w.x(first), "softsign")
    if found is None:
        below = w.build.pointwise(w.x(second), "reciprocal")
        one = w.tensor(first)
        is_one = one is not None and bool((one == 1).all())
        return below if is_one else w.build.multiply(w.x(first), below)
    x = w.x(first)
    if found.numel() == 1 and found.ndim <= x.rank:
        return w.build.times(x, 1.0 / float(found))
    return w.build.multiply(x, w.build.constant((1.0 / found.double()).float().numpy()))


def _is_softsign(x: FxNode, below: FxNode) -> bool:
    """Whether a quotient is x / (1 + |x|), as PyTorch computes `softsign`."""
    if name_of(below) != "add" or below.kwargs.get("alpha", 1) != 1 or 1 not in below.args:
        return False
    inner = next((arg for arg in below.args if is_tensor(arg)), None)
    return inner is not None and name_of(inner) == "abs" and inner.args[0] is x


def _normalized(w: Walk, x: FxNode, source: FxNode, axis: int, eps: float) -> Operand:
    """Divide x by max(|x|, eps) over one axis: an RMSNorm with gamma 1 / sqrt(C)."""
    if x is not source:
        raise Refusal("div by the norm of another tensor")
    a = w.x(x)
    size = a.shape[axis]
    order = [i for i in range(a.rank) if i != axis % a.rank] + [axis % a.rank]
    moved = w.build.permute(a, order)
    gamma = {"gamma": w.build.tensor(torch.full((size,), size**-0.5).numpy(), "gamma")}
    moved = w.build.rowwise(OpKind.RMS_NORM, moved, {"eps": eps * eps / size}, gamma)
    return w.build.permute(moved, [order.index(i) for i in range(a.rank)])


@spelling("linalg_vector_norm", "norm")
def vector_norm(w: Walk, node: FxNode) -> None:
    """Remember |x|, which a quotient may read."""
    x, order, axes, keeps = arguments(node, x=None, ord=2, dim=None, keepdim=False)[:4]
    axes = [axes] if isinstance(axes, int) else axes
    if order != 2 or axes is None or len(axes) != 1 or not keeps:
        raise Refusal(f"{name_of(node)} in this form")
    w.pending[node] = ("norm", x, axes[0], 0.0)


@spelling("clamp_min", "clamp", "clip", "maximum", "hardtanh")
def clamp(w: Walk, node: FxNode) -> Operand | None:
    """max(x, number): of a norm part of it, else ReLU; between two numbers, a clamp."""
    ends = (-1.0, 1.0) if name_of(node) == "hardtanh" else (None, None)
    source, low, high = arguments(node, x=None, min=ends[0], max=ends[1])[:3]
    if source in w.pending and w.pending[source][0] == "norm" and high is None:
        w.pending[node] = (*w.pending[source][:3], float(low))
        return None
    if w.tensor(source) is not None and name_of(node) == "maximum":
        source, low = low, source
    return w.build.clamp(w.x(source), _end(w, low), _end(w, high))


@spelling("clamp_max", "minimum")
def clamp_max(w: Walk, node: FxNode) -> Operand:
    """min(x, number)."""
    source, high = node.args[:2]
    if w.tensor(source) is not None:
        source, high = high, source
    return w.build.clamp(w.x(source), None, _end(w, high))


def _end(w: Walk, value: Any) -> float | None:
    """Return a clamp's end: a number, or a constant that holds one."""
    if value is None:
        return None
    found = w.tensor(value)
    if found is None or found.numel() != 1:
        raise Refusal("clamp to a tensor")
    return float(found)


@spelling("pow", "square")
def power(w: Walk, node: FxNode) -> Operand | None:
    """Multiply x by itself; of a moment its root."""
    if name_of(node) == "pow" and moments.power_of_moment(w, node):
        return None
    if name_of(node) == "pow" and node.args[1] != 2:
        if compose(w, node):
            return None
        raise Refusal(f"pow with exponent {node.args[1]}")
    x = w.x(node.args[0])
    return w.build.multiply(x, x)


@spelling("masked_fill")
def masked_fill(w: Walk, node: FxNode) -> Operand:
    """Put a number where a constant mask is true."""
    return chosen(w, node, node.args[1], node.args[2], node.args[0])


@spelling("where")
def where(w: Walk, node: FxNode) -> Operand:
    """Choose by a constant mask."""
    condition, first, second = node.args
    for x, wanted in ((first, 1), (second, 0)):
        if w.fixed.is_all(condition, wanted) and is_tensor(x):
            return w.x(x)
    if w.tensor(first) is not None:
        return chosen(w, node, condition, first, second)
    if w.tensor(second) is not None and w.tensor(condition) is not None:
        return chosen(w, node, condition, second, first, inverted=True)
    raise Refusal("where in this form")


def chosen(
    w: Walk, node: FxNode, mask: Any, number: Any, x: Any, inverted: bool = False
) -> Operand:
    """Return x with a number where the mask is true.

    0 multiplies by the mask's opposite; what hides a score from a softmax is added (`HIDDEN`).
    """
    found, value = w.tensor(mask), w.tensor(number)
    if found is None or value is None:
        raise Refusal(f"{name_of(node)} in this form")
    hidden = ~found.bool() if inverted else found.bool()
    if not hidden.any():
        return w.x(x)
    if value.numel() == 1 and float(value) == 0:
        return w.build.multiply(w.x(x), w.build.constant((~hidden).float().numpy(), "mask"))
    is_far = value.numel() == 1 and float(value) <= -1e3
    if not is_far or not all(name_of(user) in ("softmax", "_softmax") for user in node.users):
        raise Refusal(f"{name_of(node)} that hides something")
    return w.build.add(w.x(x), w.build.constant(torch.where(hidden, HIDDEN, 0.0).numpy(), "mask"))
