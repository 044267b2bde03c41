"""Joins all quantizers of one tensor's parts, and the factors before them, for `HoistQuantize`."""

from dataclasses import dataclass, field

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.qparams import PerAxis, PerTensor, QuantParams
from vitq.relay_passes.expressions import Expr, shape_of
from vitq.relay_passes.reading.context import DeclineError
from vitq.relay_passes.reading.matching import Quantizer
from vitq.relay_passes.reading.scaling import SCALINGS, Factor
from vitq.relay_passes.reading.tracing import channel_ids, follow


@dataclass(frozen=True)
class Leaf:
    """One quantizer; the layout operators and scalar factors between the root and it."""

    var: Expr
    quantizer: Quantizer
    chain: list[Expr]
    factors: tuple[Factor, ...]


@dataclass
class Group:
    """All quantizers that read one root.

    Attributes:
        root: the tensor that a float operator computes.
        leaves: the quantizers.
        codes: the root's only quantizer, once emitted.
        moved: layout operators of the codes that are emitted already, by the old call.
    """

    root: Expr
    leaves: list[Leaf]
    codes: Expr | None = None
    moved: dict[Expr, Expr] = field(default_factory=dict)


def joined_quantizer(group: Group, axis: int) -> Quantizer:
    """One quantizer of the root that equals all quantizers of its parts, but for narrower bounds.

    Args:
        group: the quantizers.
        axis: the root's channel axis.

    Returns:
        Per tensor where all agree, otherwise per channel; the widest bounds, and the smallest of
        the parts' types that holds them.

    Raises:
        DeclineError: where they cannot be joined.
    """
    dtype, low, high = _widest(group)
    channels = shape_of(group.root)[axis]
    scale = np.zeros(channels, np.float32)
    zero_point = np.zeros(channels, np.int32)
    for leaf in group.leaves:
        ids = follow(channel_ids(group.root, axis), leaf.chain)
        _assign(scale, zero_point, ids, leaf.quantizer)
    used = scale > 0
    scale[~used], zero_point[~used] = scale[used][0], zero_point[used][0]
    if np.all(scale == scale[0]) and np.all(zero_point == zero_point[0]):
        qparams = QuantParams(scale[0], zero_point[0], low, high, PerTensor())
    else:
        qparams = QuantParams(scale, zero_point, low, high, PerAxis(axis))
    return Quantizer(group.root, qparams, dtype)


def _widest(group: Group) -> tuple[str, int, int]:
    """Return the type and bounds that hold all leaves' codes."""
    quantizers = [leaf.quantizer for leaf in group.leaves]
    low = min(quantizer.qparams.qmin for quantizer in quantizers)
    high = max(quantizer.qparams.qmax for quantizer in quantizers)
    types = sorted({quantizer.dtype for quantizer in quantizers}, key=lambda t: np.iinfo(t).bits)
    for dtype in types:
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return dtype, low, high
    raise DeclineError(
        f"one tensor is quantized to different types, none of which holds all: {', '.join(types)}"
    )


def _assign(scale: FloatArray, zero_point: IntArray, ids: IntArray, quantizer: Quantizer) -> None:
    """Write one quantizer into its channels' entries; refuse a second, different one."""
    if quantizer.is_per_tensor:
        ids = _reached(ids, len(scale))
    scales, zeros = quantizer.qparams.along(ids.ndim)
    scales, zeros = np.broadcast_to(scales, ids.shape), np.broadcast_to(zeros, ids.shape)
    free = scale[ids] == 0
    scale[ids] = np.where(free, scales, scale[ids])
    zero_point[ids] = np.where(free, zeros, zero_point[ids])
    same = (scale[ids] == scales) & (zero_point[ids] == zeros)
    if not np.all(same):
        channel = int(ids[~same][0])
        raise DeclineError(f"channel {channel} would get two different quantizers")


def _reached(ids: IntArray, channels: int) -> IntArray:
    """Return the channels among some ids, each once."""
    reached = np.zeros(channels, bool)
    reached[ids.reshape(-1)] = True
    return np.flatnonzero(reached)


def joined_factors(group: Group, axis: int) -> list[Factor]:
    """Return what the root must be multiplied and divided by, so that the parts need not be.

    A part's first factor lies in the first of them, and so on; other channels get a 1, which
    changes nothing.

    Args:
        group: the quantizers.
        axis: the root's channel axis.

    Returns:
        In order; () where all channels agree, otherwise (C,).

    Raises:
        DeclineError: where a channel reaches two quantizers through different factors.
    """
    if not any(leaf.factors for leaf in group.leaves):
        return []
    channels = shape_of(group.root)[axis]
    chosen: list[tuple[Factor, ...] | None] = [None] * channels
    for leaf in group.leaves:
        ids = follow(channel_ids(group.root, axis), leaf.chain)
        for channel in _reached(ids, channels):
            if chosen[channel] not in (None, leaf.factors):
                raise DeclineError(f"channel {channel} would get two different factors")
            chosen[channel] = leaf.factors
    rows = [row for row in chosen if row is not None]
    rows = [rows[0] if row is None else row for row in chosen]
    steps = []
    for step in range(max(len(row) for row in rows)):
        for name in SCALINGS:
            value = np.array([_value(row, step, name) for row in rows])
            if np.any(value != 1):
                steps.append(Factor(name, value[0] if np.all(value == value[0]) else value))
    return steps


def _value(row: tuple[Factor, ...], step: int, name: str) -> float:
    """One channel's factor in one step, 1 where it has none."""
    found = row[step] if step < len(row) else None
    return float(found.value) if found is not None and found.name == name else 1.0
