"""Nodes of a `Graph`, made one after the other, with the shapes that follow.

One operator of PyTorch may become several nodes. They are called after it (``base``): the last one
has its name, those before it a suffix.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.clamps import clamp_attrs
from vitq.quantization.graph.graph import Node, OpKind
from vitq.quantization.graph.shapes import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    Operand,
    Refusal,
    broadcast,
    keep_pictures,
    without,
)

__all__ = ["Builder", "Operand", "Refusal", "keep_pictures"]


class Builder:
    """Nodes and tensors so far; each method adds one node, or none where it changes nothing.

    A map (N, C, H, W) that is made of (N, H, W, C) stays so: what reads it element by element, or
    moves whole pixels, reads the latter, and only who asks for channels first gets them.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.tensors: dict[str, Any] = {}
        self.base = ""
        self._last: dict[str, Operand] = {}

    def unique(self, name: str) -> str:
        """Return a name that no node has yet."""
        found, number = name, 1
        while found in self.nodes:
            found, number = f"{name}_{number}", number + 1
        return found

    def node(
        self,
        op: OpKind,
        inputs: Sequence[Operand],
        shape: Sequence[int],
        batch_axis: int | None,
        attrs: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        suffix: str = "",
    ) -> Operand:
        """Add a node."""
        name = self.unique(f"{self.base}.{suffix or op}")
        names = tuple(x.name for x in inputs)
        self.nodes[name] = Node(
            name, op, names, tuple(shape), batch_axis, dict(params or {}), dict(attrs or {})
        )
        return Operand(name, tuple(shape), batch_axis)

    def rename(self, x: Operand, name: str) -> Operand:
        """Call the node that was added last by another name."""
        node = self.nodes.pop(x.name)
        node.name = self.unique(name)
        self.nodes[node.name] = node
        if x.name in self._last:
            self._last[node.name] = self._last.pop(x.name)
        return x._replace(name=node.name)

    def tensor(self, values: Any, role: str) -> str:
        """Store a computed tensor; return its key."""
        key, number = f"{self.base}.{role}", 1
        while key in self.tensors:
            key, number = f"{self.base}.{role}_{number}", number + 1
        self.tensors[key] = np.array(values, np.float32)
        return key

    def constant(self, values: FloatArray | float, suffix: str = "value") -> Operand:
        """Add a constant of at least one axis."""
        value = np.atleast_1d(np.asarray(values, np.float32))
        params = {"value": self.tensor(value, suffix)}
        return self.node(OpKind.CONSTANT, (), value.shape, None, None, params, suffix)

    def value_of(self, x: Operand) -> FloatArray | None:
        """Return what a constant holds; None of any other node."""
        node = self.nodes[x.name]
        found: FloatArray | None = None
        if node.op is OpKind.CONSTANT:
            found = self.tensors[node.params["value"]]
        return found

    # Layout

    def reshape(self, x: Operand, shape: Sequence[int], batch_axis: int | None) -> Operand:
        """Give a tensor other axes; `batch_axis` is the one whose extent grows with the batch."""
        if tuple(shape) == x.shape and batch_axis == x.batch_axis:
            return x
        if int(np.prod(shape)) != int(np.prod(x.shape)):
            raise Refusal("reshape that mixes the pictures of a batch")
        return self.node(OpKind.RESHAPE, (x,), shape, batch_axis)

    def permute(self, x: Operand, axes: Sequence[int], suffix: str = "") -> Operand:
        """Put axis ``axes[i]`` at place i."""
        order = [axis % x.rank for axis in axes]
        if order == list(range(x.rank)):
            return x
        if x.name in self._last:
            return self.permute(self._last[x.name], [CHANNELS_FIRST[axis] for axis in order])
        found = self._permute(x, order, suffix)
        if order == CHANNELS_FIRST:
            self._last[found.name] = x
        return found

    def _permute(self, x: Operand, order: list[int], suffix: str) -> Operand:
        shape = [x.shape[axis] for axis in order]
        batch = None if x.batch_axis is None else order.index(x.batch_axis)
        return self.node(OpKind.PERMUTE, (x,), shape, batch, {"axes": order}, suffix=suffix)

    def channels_last(self, x: Operand) -> Operand:
        """Return (N, C, H, W) as (N, H, W, C)."""
        return self._known_last(x) or self.permute(x, CHANNELS_LAST)

    def channels_first(self, x: Operand) -> Operand:
        """Return (N, H, W, C) as (N, C, H, W)."""
        return self.permute(x, CHANNELS_FIRST)

    def _known_last(self, x: Operand) -> Operand | None:
        """Return what a map is made of with the channels last, if it is."""
        node = self.nodes.get(x.name)
        if x.name in self._last or node is None or node.op is not OpKind.RESHAPE or x.rank != 4:
            return self._last.get(x.name)
        source = self.nodes[node.inputs[0]]
        is_tokens = source.op is OpKind.PERMUTE and source.attrs["axes"] == [0, 2, 1]
        if not is_tokens or source.shape[:2] != x.shape[:2]:
            return None
        tokens = self.nodes[source.inputs[0]]
        inner = Operand(tokens.name, tokens.shape, tokens.batch_axis)
        moved = [x.shape[axis] for axis in CHANNELS_LAST]
        self._last[x.name] = self.reshape(inner, moved, x.batch_axis)
        return self._last[x.name]

    def select(self, x: Operand, axis: int, index: int) -> Operand:
        """Take one index of an axis, which goes."""
        axis %= x.rank
        keep_pictures(x, axis)
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        attrs = {"axis": axis, "index": index % x.shape[axis]}
        return self.node(OpKind.SELECT, (x,), shape, without(x.batch_axis, axis), attrs)

    def slice(self, x: Operand, axis: int, start: int, stop: int) -> Operand:
        """Keep a range of an axis."""
        axis %= x.rank
        if (start, stop) == (0, x.shape[axis]):
            return x
        keep_pictures(x, axis)
        if x.name in self._last:
            moved = self.slice(self._last[x.name], CHANNELS_LAST.index(axis), start, stop)
            return self.channels_first(moved)
        shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
        attrs = {"axis": axis, "start": start, "stop": stop}
        return self.node(OpKind.SLICE, (x,), shape, x.batch_axis, attrs)

    def take(self, x: Operand, axis: int, indices: Sequence[int]) -> Operand:
        """Put index ``indices[i]`` of an axis at place i."""
        axis %= x.rank
        size = x.shape[axis]
        found = [int(index) % size for index in indices]
        keep_pictures(x, axis)
        if found == list(range(found[0], found[0] + len(found))):
            return self.slice(x, axis, found[0], found[0] + len(found))
        if x.name in self._last:
            inner = self.take(self._last[x.name], CHANNELS_LAST.index(axis), found)
            return self.channels_first(inner)
        shape = (*x.shape[:axis], len(found), *x.shape[axis + 1 :])
        attrs = {"axis": axis, "indices": found}
        return self.node(OpKind.TAKE, (x,), shape, x.batch_axis, attrs)

    def pad(self, x: Operand, pads: Sequence[tuple[int, int]]) -> Operand:
        """Put zeros around; negative numbers cut off."""
        for axis, (before, after) in enumerate(pads):
            x = self.slice(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
        pairs = [[max(0, before), max(0, after)] for before, after in pads]
        if not np.any(pairs):
            return x
        if x.name in self._last:
            inner = self.pad(
                self._last[x.name], [(pairs[axis][0], pairs[axis][1]) for axis in CHANNELS_LAST]
            )
            return self.channels_first(inner)
        for axis, pair in enumerate(pairs):
            if any(pair):
                keep_pictures(x, axis)
        shape = [size + sum(pair) for size, pair in zip(x.shape, pairs, strict=True)]
        return self.node(OpKind.PAD, (x,), shape, x.batch_axis, {"pads": pairs})

    def expand(self, x: Operand, shape: Sequence[int], batch_axis: int | None) -> Operand:
        """Repeat along axes of extent 1."""
        if x.rank < len(shape):
            ones = (1,) * (len(shape) - x.rank)
            moved = None if x.batch_axis is None else x.batch_axis + len(ones)
            x = self.reshape(x, (*ones, *x.shape), moved)
        if tuple(shape) == x.shape and batch_axis == x.batch_axis:
            return x
        return self.node(OpKind.EXPAND, (x,), shape, batch_axis)

    def concat(self, parts: Sequence[Operand], axis: int) -> Operand:
        """Put tensors one behind the other."""
        axis %= parts[0].rank
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            keep_pictures(part, axis)
        batch = next((p.batch_axis for p in parts if p.batch_axis is not None), None)
        if all(part.name in self._last for part in parts):
            inner = [self._last[part.name] for part in parts]
            return self.channels_first(self.concat(inner, CHANNELS_LAST.index(axis)))
        whole = [self._as_many(part, batch) for part in parts]
        shape = list(whole[0].shape)
        shape[axis] = sum(part.shape[axis] for part in whole)
        return self.node(OpKind.CONCAT, whole, shape, batch, {"axis": axis})

    def _as_many(self, part: Operand, batch: int | None) -> Operand:
        """Repeat a constant for each picture."""
        return part if part.batch_axis == batch else self.expand(part, part.shape, batch)

    # Arithmetic

    def elementwise(self, op: OpKind, a: Operand, b: Operand) -> Operand:
        """Add or multiply; the operand that has the result's shape comes first."""
        moved = self._both_last(a, b)
        if moved is not None:
            return self.channels_first(self.elementwise(op, *moved))
        shape, batch = broadcast(a, b)
        if a.shape != shape or (a.batch_axis is None and batch is not None):
            a, b = b, a
        if a.batch_axis is None and b.batch_axis is not None:
            a, b = b, a  # what has the pictures' axis is repeated along others
        if a.shape != shape or a.batch_axis != batch:
            a = self.expand(a, shape, batch)
        return self.node(op, (a, b), shape, batch)

    def _both_last(self, a: Operand, b: Operand) -> list[Operand] | None:
        """Return two operands with the channels last, where one of them is made so."""
        known = [self._known_last(x) for x in (a, b)]
        if known == [None, None]:
            return None
        values = [self.value_of(x) for x in (a, b)]
        if any(x.rank != 4 and value is None for x, value in zip((a, b), values, strict=True)):
            return None
        found = []
        for x, last, value in zip((a, b), known, values, strict=True):
            if value is not None and max(value.shape) > 1:
                wide = value.reshape((1,) * (4 - value.ndim) + value.shape)
                found.append(self.constant(wide.transpose(CHANNELS_LAST)))
            else:
                found.append(x if value is not None else last or self.permute(x, CHANNELS_LAST))
        return found

    def add(self, a: Operand, b: Operand) -> Operand:
        """Add two tensors."""
        return self.elementwise(OpKind.ADD, a, b)

    def multiply(self, a: Operand, b: Operand) -> Operand:
        """Multiply two tensors, element by element."""
        return self.elementwise(OpKind.MULTIPLY, a, b)

    def times(self, x: Operand, factor: float) -> Operand:
        """Multiply by a number."""
        factor = float(np.float32(factor))
        if x.name in self._last:
            return self.channels_first(self.times(self._last[x.name], factor))
        if factor > 0:
            return self.node(OpKind.SCALE, (x,), x.shape, x.batch_axis, {"factor": factor})
        return self.multiply(x, self.constant(factor, "factor"))

    def matmul(self, a: Operand, b: Operand, suffix: str = "") -> Operand:
        """Multiply matrices: (..., M, K) by (..., K, N); of scaled ones the product is scaled."""
        factor = 1.0
        for x in (a, b):
            factor *= self.nodes[x.name].attrs["factor"] if self._is_scaled(x) else 1.0
        if factor != 1.0:
            a, b = (self._unscaled(x) if self._is_scaled(x) else x for x in (a, b))
            return self.times(self.matmul(a, b, suffix or "product"), factor)
        outer = broadcast(
            a._replace(shape=(*a.shape[:-2], 1, 1)), b._replace(shape=(*b.shape[:-2], 1, 1))
        )
        shape = (*outer[0][:-2], a.shape[-2], b.shape[-1])
        return self.node(OpKind.MATMUL, (a, b), shape, outer[1], suffix=suffix)

    def _is_scaled(self, x: Operand) -> bool:
        return x.name not in self._last and self.nodes[x.name].op is OpKind.SCALE

    def _unscaled(self, x: Operand) -> Operand:
        return x._replace(name=self.nodes[x.name].inputs[0])

    def linear(self, x: Operand, params: dict[str, str]) -> Operand:
        """Apply a linear layer to the last axis."""
        shape = (*x.shape[:-1], self.tensors[params["weight"]].shape[0])
        if x.batch_axis == x.rank - 1:
            raise Refusal("linear over the pictures of a batch")
        return self.node(OpKind.LINEAR, (x,), shape, x.batch_axis, None, params)

    def rowwise(
        self,
        op: OpKind,
        x: Operand,
        attrs: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        suffix: str = "",
    ) -> Operand:
        """Add an operator that keeps the shape: of each element, or over the last axis."""
        if op in (OpKind.POINTWISE, OpKind.GELU) and x.name in self._last:
            inner = self.rowwise(op, self._last[x.name], attrs, params, suffix)
            return self.channels_first(inner)
        return self.node(op, (x,), x.shape, x.batch_axis, attrs, params, suffix)

    def pointwise(self, x: Operand, function: str, parameter: float | None = None) -> Operand:
        """Apply a function of one number."""
        attrs = {"function": function} | ({} if parameter is None else {"parameter": parameter})
        return self.rowwise(OpKind.POINTWISE, x, attrs)

    def clamp(self, x: Operand, low: float | None, high: float | None) -> Operand:
        """Keep values between two numbers; None for an end that is not there.

        A zero point is a code between the bounds that a clamp becomes: 0 must lie in between.
        """
        if not (-np.inf if low is None else low) <= 0 <= (np.inf if high is None else high):
            raise Refusal(f"clamp to {low}, {high}, which leaves out 0")
        return self.rowwise(OpKind.POINTWISE, x, clamp_attrs(low, high))

    def reduce(self, op: OpKind, x: Operand, axis: int) -> Operand:
        """Take the mean or the maximum over one axis, which goes."""
        axis %= x.rank
        keep_pictures(x, axis)
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        return self.node(op, (x,), shape, without(x.batch_axis, axis), {"axis": axis})
