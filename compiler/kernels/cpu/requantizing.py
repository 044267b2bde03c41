"""From accumulators to codes: one multiplication, one addition, one shift, in registers.

Bias, rounding, zero points and the primitive's activation offset fold into one int64 addend for
each channel (`pack_requantize`):

    code = clamp((acc * multiplier + addend) >> shift)

The right shift takes one of three forms:

* ``high``: every shift is at least 32: the product's high half, shifted by the rest.
* ``moved``: some shift is less: the accumulator and the addend first move up to make it 32, if what
  the weights prove about the accumulator allows that.
* ``wide``: 64-bit lanes otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitq.compiler.kernels.cpu.arith import clamp, load_wide, multiply_add, split_constant
from vitq.compiler.kernels.cpu.builder import Buffer, Expr, bind, cast, const, load
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import Dyadic, addend

WORD = 32
ACTIVATION_LIMIT = 255
"""The largest magnitude of an activation as stored."""


@dataclass(frozen=True)
class RequantizeSpec:
    """What the code of `Requantize` depends on.

    Attributes:
        shift: ``high``, ``moved`` or ``wide``.
        low: smallest code, if the bounds are a storage type's own; else None, and they are read.
        high: largest code likewise.
    """

    shift: str
    low: int | None = None
    high: int | None = None


def pack_requantize(
    constants: Mapping[int, IntArray], offset: int, dot: Dot
) -> tuple[RequantizeSpec, tuple[IntArray, ...]]:
    """Arrange the constants of ``vitq.linear`` behind its weight.

    Args:
        constants: weight (1), bias, multiplier, shift, zero_point, bounds (6).
        offset: added to each activation when it is stored.
        dot: the primitive.

    Returns:
        The code's form, and multiplier, addend, shift, bounds.
    """
    weight, bias, multiplier, shift, zero_point, bounds = (
        constants[i].astype(np.int64) for i in range(1, 7)
    )
    weight = weight.reshape(weight.shape[0], -1)
    dyadic = Dyadic(multiplier, shift)
    add = addend(bias - offset * weight.sum(axis=1), dyadic, 0) + (zero_point << shift)
    up = np.maximum(WORD - shift, 0)
    form = "high" if not up.any() else "moved"
    if form == "moved" and not _can_move(weight, multiplier, add, up):
        form = "wide"
    lanes, split = dot.lanes, dot.split
    if form == "wide":
        moves = split_constant(grouped(shift, dot, WORD), lanes, split)
    else:
        add = add << up
        parts = [np.maximum(shift - WORD, 0)] + ([up] if form == "moved" else [])
        moves = np.concatenate([grouped(part, dot) for part in parts], axis=1).astype(np.int32)
    packed = (
        split_constant(grouped(multiplier, dot), lanes, split, "int32"),
        split_constant(grouped(add, dot), lanes, split),
        moves,
        bounds,
    )
    return RequantizeSpec(form, *_own_bounds(bounds)), packed


def _can_move(weight: IntArray, multiplier: IntArray, add: IntArray, up: IntArray) -> bool:
    """Whether neither the accumulators nor the products overflow when they are moved up."""
    largest = [ACTIVATION_LIMIT * int(total) for total in np.abs(weight).sum(axis=1)]
    return all(
        acc << int(k) < 2**31 and (acc * abs(int(m)) + abs(int(b))) << int(k) < 2**63
        for acc, m, b, k in zip(largest, multiplier, add, up, strict=True)
    )


def _own_bounds(bounds: IntArray) -> tuple[int | None, int | None]:
    """Return the bounds, if they are those of a type."""
    low, high = (int(b) for b in bounds)
    for dtype in (np.int8, np.uint8, np.int16):
        info = np.iinfo(dtype)
        if (low, high) == (info.min, info.max):
            return low, high
    return None, None


def grouped(values: IntArray, dot: Dot, fill: int = 0) -> IntArray:
    """(N,) as (groups, lanes), padded."""
    groups = dot.groups(values.size)
    padded = np.full(groups * dot.lanes, fill, np.int64)
    padded[: values.size] = values
    return padded.reshape(groups, dot.lanes)


class Requantize:
    """Emits codes from accumulators."""

    def __init__(self, spec: RequantizeSpec, dot: Dot, constants: tuple[Buffer, ...]) -> None:
        """Keep what `pack_requantize` arranged."""
        self.spec, self.dot = spec, dot
        self.multiplier, self.add, self.shift, bounds = constants
        if spec.low is None:
            self.bounds = load(bounds, 0), load(bounds, 1)
        else:
            self.bounds = const(spec.low, "int64"), const(spec.high or 0, "int64")

    def __call__(self, acc: Expr, group: Expr) -> Expr:
        """Compute a group's codes as int32 lanes, clamped only in the ``wide`` form."""
        lanes, split = self.dot.lanes, self.dot.split
        if self.spec.shift == "moved":
            acc = bind(acc << load(self.shift, group, lanes, lanes=lanes))
        wide = multiply_add(
            acc,
            load_wide(self.multiplier, group, lanes, split),
            load_wide(self.add, group, lanes, split),
            split,
        )
        if self.spec.shift != "wide":
            return bind(wide.high() >> load(self.shift, group, 0, lanes=lanes))
        moved = wide.zip(load_wide(self.shift, group, lanes, split), lambda v, s: v >> s)
        return moved.map(lambda v: clamp(v, *self.bounds)).low()

    def clamp(self, codes: Expr, dtype: str) -> Expr:
        """Limit codes in int32 or int16 lanes."""
        return clamp(codes, *(bind(cast(b, dtype)) for b in self.bounds))
