"""Norms that are written by hand: x over the root of its own moment, along the last axis.

    y / sqrt(mean(y * y) + eps)       y = x              RMSNorm
                                      y = x - mean(x)    LayerNorm without weights

in any of torch's spellings: ``var``, ``std``, ``rsqrt``, ``pow`` with 0.5 or -0.5, 1 over the root,
the square as ``pow``, ``square`` or a product. An unbiased variance is N / (N - 1) of the other:

    y / sqrt(k mean(y * y) + eps)  =  k**-0.5  y / sqrt(mean(y * y) + eps / k)

A root is remembered (`Walk.pending`) until a quotient or a product reads it; a weight behind it is
a scale of channels and a bias an addition, which `quantization.graph.rewrites` fold into the norm.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.registry import arguments, spelling

SAME = frozenset({"_to_copy", "to", "float", "type_as", "contiguous", "clone", "alias", "detach"})
"""Operators whose result is what they read."""
MOMENT, ROOT = "moment", "root"


class Moment(NamedTuple):
    """``factor * mean(y * y) + eps`` over the last axis.

    Attributes:
        source: x.
        centred: whether y is x - mean(x), or x itself.
        eps: added.
        factor: of an unbiased variance.
    """

    source: FxNode
    centred: bool
    eps: float = 0.0
    factor: float = 1.0


class Root(NamedTuple):
    """Its square root, or one over that."""

    moment: Moment
    inverse: bool


def plain(node: Any) -> Any:
    """Return what a node is, without casts and copies."""
    while isinstance(node, torch.fx.Node) and name_of(node) in SAME:
        node = node.args[0]
    return node


def _is(node: Any, *names: str) -> bool:
    return isinstance(node, torch.fx.Node) and name_of(node) in names


def _is_over_last(node: FxNode) -> bool:
    """Whether an operator reduces the last axis alone, and keeps it."""
    axes = arguments(node, x=None, dim=None)[1]
    axes = [axes] if isinstance(axes, int) else axes
    rank = len(node.args[0].meta["val"].shape)
    keeps = len(node.meta["val"].shape) == rank
    return bool(keeps and axes and [axis % rank for axis in axes] == [rank - 1])


def centre_of(node: Any) -> Any:
    """Return x of x - mean(x); None of anything else."""
    node = plain(node)
    if not _is(node, "sub") or node.kwargs.get("alpha", 1) != 1:
        return None
    x, mean = (plain(arg) for arg in node.args[:2])
    is_own = _is(mean, "mean") and _is_over_last(mean) and plain(mean.args[0]) is x
    return x if is_own else None


def _squared(node: Any) -> Any:
    """Return y of y * y; None of anything else."""
    node = plain(node)
    if _is(node, "square") or (_is(node, "pow") and node.args[1] == 2):
        return plain(node.args[0])
    if _is(node, "mul") and plain(node.args[0]) is plain(node.args[1]):
        return plain(node.args[0])
    return None


def moment_of(w: Walk, node: Any) -> Moment | None:
    """Read a moment, with what is added to it; None where it is none."""
    node = plain(node)
    if not isinstance(node, torch.fx.Node):
        return None
    kind, *known = w.pending.get(node, ("",))
    if kind == MOMENT:
        found: Moment = known[0]
        return found
    if _is(node, "add"):
        inner, eps = node.args[:2]
        number = w.tensor(eps)
        if number is None or number.numel() != 1:
            return None
        moment = moment_of(w, inner)
        return moment and moment._replace(eps=moment.eps + float(number))
    if not _is(node, "mean") or not _is_over_last(node):
        return None
    y = _squared(node.args[0])
    if y is None:
        return None
    x = centre_of(y)
    return Moment(y, False) if x is None else Moment(x, True)


@spelling("var", "std")
def variance(w: Walk, node: FxNode) -> None:
    """Remember the variance, or its root, for the norm that reads it."""
    size = int(node.args[0].meta["val"].shape[-1])
    second = arguments(node, x=None, dim=None, unbiased=True)[2]
    taken = node.kwargs.get("correction", 1 if second in (True, None) else int(second))
    if not _is_over_last(node) or not 0 <= taken < size:
        raise Refusal(f"{name_of(node)} in this form")
    moment = Moment(plain(node.args[0]), True, 0.0, size / (size - taken))
    is_root = name_of(node) == "std"
    w.pending[node] = (ROOT, Root(moment, False)) if is_root else (MOMENT, moment)


@spelling("sqrt", "rsqrt")
def root(w: Walk, node: FxNode) -> None:
    """Remember the root of a moment, or one over it."""
    moment = moment_of(w, node.args[0])
    if moment is None:
        raise Refusal(f"{name_of(node)} in this form")
    w.pending[node] = (ROOT, Root(moment, name_of(node) == "rsqrt"))


def passes_on(w: Walk, node: FxNode) -> bool:
    """Remember a moment plus a number, or a root times 1, and tell whether it is one."""
    first, second = node.args[:2]
    if name_of(node) == "mul":
        known = w.pending.get(first, ("",)) if isinstance(first, torch.fx.Node) else ("",)
        if known[0] == ROOT and second == 1:
            w.pending[node] = known
        return node in w.pending
    is_moment = any(w.pending.get(arg, ("",))[0] == MOMENT for arg in node.all_input_nodes)
    moment = moment_of(w, node) if is_moment else None
    if moment is not None:
        w.pending[node] = (MOMENT, moment)
    return moment is not None


@spelling("reciprocal")
def reciprocal(w: Walk, node: FxNode) -> Operand | None:
    """1 / x; of a root it is remembered."""
    found = root_of(w, node.args[0])
    if found is None:
        return w.build.pointwise(w.x(node.args[0]), "reciprocal")
    w.pending[node] = (ROOT, Root(found.moment, not found.inverse))
    return None


def power_of_moment(w: Walk, node: FxNode) -> bool:
    """Remember a moment to the power of 0.5 or -0.5, and tell whether it is one."""
    moment = moment_of(w, node.args[0]) if node.args[1] in (0.5, -0.5) else None
    if moment is not None:
        w.pending[node] = (ROOT, Root(moment, node.args[1] < 0))
    return moment is not None


def root_of(w: Walk, node: Any) -> Root | None:
    """Return the root that an argument is; None of anything else."""
    node = plain(node)
    if not isinstance(node, torch.fx.Node):
        return None
    kind, *known = w.pending.get(node, ("",))
    return known[0] if kind == ROOT else None


def normalized(w: Walk, y: Any, below: Any, divides: bool) -> Operand | None:
    """Return the norm that a quotient or product is; None where it is no norm.

    Args:
        w: what is known.
        y: what is divided.
        below: by what, or times what.
        divides: which of both.

    Raises:
        Refusal: of the root of another tensor, or a root that does not divide.
    """
    found = root_of(w, below)
    if found is None:
        return None
    moment, x = found.moment, plain(y)
    centre = centre_of(x)
    if found.inverse == divides or moment.source is not (centre if moment.centred else x):
        raise Refusal("a norm by the root of another tensor")
    source, eps = w.x(moment.source), moment.eps / moment.factor
    size = source.shape[-1]
    params = {"gamma": w.build.tensor(np.full(size, moment.factor**-0.5), "gamma")}
    if not moment.centred:
        return w.build.rowwise(OpKind.RMS_NORM, source, {"eps": eps}, params)
    params["beta"] = w.build.tensor(np.zeros(size), "beta")
    return w.build.rowwise(OpKind.LAYER_NORM, source, {"eps": eps}, params)
