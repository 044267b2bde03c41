"""Tensors that a model changes in place, whole or in part: who reads them later reads the result.

    y = x[:, 1:]; y += a      x read later     ->   x' = concat(x[:, :1], y + a)
    x[:, :, 2] = a                             ->   x' = concat(x[:, :, :2], a, x[:, :, 3:])
    y = x.mT; x += a          y read later     ->   y' = (x + a).mT

The exported program knows which of its tensors share memory. What is written through a view is put
back into the tensor that owns the memory, and all other views are taken from that again.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.operands import FxNode, Walk, name_of

NAMES = {
    "slice": ("dim", "start", "end", "step"),
    "select": ("dim", "index"),
    "narrow": ("dim", "start", "length"),
}
"""A view of a range of an axis -> its arguments behind the tensor."""
Spell = Callable[[Walk, FxNode], Operand | None]


def overwrite(w: Walk, node: FxNode, result: Operand, spell: Spell) -> None:
    """Let whoever reads a tensor that was changed in place read the result.

    Args:
        w: what is known.
        node: that wrote into its first argument.
        result: what it wrote, of that argument's shape.
        spell: converts a view again.

    Raises:
        Refusal: if the memory is read later, and the written part cannot be put back into it.
    """
    order = {other: place for place, other in enumerate(node.graph.nodes)}
    aliases = [other for other in node.graph.nodes if other is not node and _shares(other, node)]
    before = [alias for alias in aliases if order[alias] < order[node]]
    w.replace(node.args[0], result)
    later = {alias for alias in before if any(order[user] > order[node] for user in alias.users)}
    if later <= {node.args[0]}:
        return
    way = [node.args[0]]
    while (parent := _parent(way[-1])) in before:
        way.append(parent)
    for view, whole in itertools.pairwise(way):
        result = _put_back(w, node, view, w.x(whole), result)
        w.replace(whole, result)
    for alias in before:
        if alias not in way and isinstance(alias.meta["val"], torch.Tensor):
            w.build.base = alias.name
            found = w.x(_parent(alias)) if _is_in_place(alias) else spell(w, alias)
            if found is not None:
                w.replace(alias, found)


def _shares(other: FxNode, node: FxNode) -> bool:
    """Whether two nodes' tensors share memory."""
    one, written = other.meta.get("val"), node.args[0].meta["val"]
    known = torch._C._is_alias_of  # type: ignore[attr-defined]  # has no public name
    return isinstance(one, torch.Tensor) and bool(known(one, written))


def _parent(view: FxNode) -> FxNode:
    """Return the tensor that a view or an operator in place was given."""
    source: Any = view.args[0] if view.args else None
    return source.args[0] if name_of(view) == "getitem" else source


def _is_in_place(node: FxNode) -> bool:
    return name_of(node).endswith("_")


def _put_back(w: Walk, node: FxNode, view: FxNode, whole: Operand, part: Operand) -> Operand:
    """Return a tensor with a part of it replaced.

    Args:
        w: what is known.
        node: that wrote, for the message.
        view: of `whole`, that was written.
        whole: before.
        part: what the view holds now.

    Raises:
        Refusal: of a view that is no range of an axis and no other order of all elements.
    """
    if _is_in_place(view):
        return part
    kind = name_of(view)
    found = _range(w, view, whole) if kind in NAMES else None
    if found is None:
        order = _order(w, view)
        if order == "kept":
            return w.build.reshape(part, whole.shape, whole.batch_axis)
        if order is not None:
            return w.build.permute(part, order)
    elif found[1] == range(whole.shape[found[0]]) and part.rank == whole.rank:
        return part
    elif found[0] != whole.batch_axis and found[1].step == 1:
        return _replaced(w, whole, part, *found)
    where = "" if found is None else f" along axis {found[0]}"
    raise Refusal(f"{name_of(node)} on a part of a tensor ({kind}{where})")


def _replaced(w: Walk, whole: Operand, part: Operand, axis: int, places: range) -> Operand:
    """Return a tensor with a range of an axis replaced; one place may come without the axis."""
    if part.rank < whole.rank:
        batch = part.batch_axis
        batch = batch + 1 if batch is not None and batch >= axis else batch
        part = w.build.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:]), batch)
    size = whole.shape[axis]
    pieces = [(0, places.start), (places.stop, size)]
    first, last = (
        [w.build.slice(whole, axis, start, stop)] if start < stop else [] for start, stop in pieces
    )
    return w.build.concat([*first, part, *last], axis)


def _range(w: Walk, view: FxNode, whole: Operand) -> tuple[int, range]:
    """Return the axis of a view, and which of its places the view has."""
    kind, arguments = name_of(view), list(view.args[1:])
    given = {**dict(zip(NAMES[kind], arguments, strict=False)), **view.kwargs}
    given = {key: w.plain(value) for key, value in given.items()}
    axis = given.get("dim", 0) % whole.rank
    places = range(whole.shape[axis])
    if kind == "select":
        index = given["index"] % len(places)
        return axis, places[index : index + 1]
    if kind == "narrow":
        return axis, places[given["start"] :][: given["length"]]
    return axis, places[slice(given.get("start"), given.get("end"), given.get("step"))]


def _order(w: Walk, view: FxNode) -> Any:
    """Return how a view of all elements orders them.

    Returns:
        ``kept``; the permutation that undoes the view; or None of anything else.
    """
    source = [w.fixed.size(size) for size in view.args[0].meta["val"].shape]
    numbered = torch.arange(torch.Size(source).numel()).reshape(source)
    args, kwargs = torch.fx.map_arg((view.args[1:], view.kwargs), w.fixed.value)
    seen = view.target(numbered, *args, **kwargs)
    if seen.numel() == numbered.numel() and torch.equal(seen.reshape(-1), numbered.reshape(-1)):
        return "kept"
    axes = list(zip(seen.stride(), seen.shape, strict=True))
    wanted = list(zip(numbered.stride(), numbered.shape, strict=True))
    if sorted(axes) != sorted(wanted) or len(set(axes)) != len(axes):
        return None
    return [axes.index(axis) for axis in wanted]
