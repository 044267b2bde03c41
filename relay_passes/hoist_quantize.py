"""HoistQuantize: quantizers move up to the operator that computes what they quantize."""

from dataclasses import dataclass, field

import numpy as np

from numerics.arrays import FloatArray, IntArray
from numerics.qparams import PerAxis, PerTensor, QuantParams
from relay_passes.matching import (
    Expr,
    Quantizer,
    op_name,
    quantize_call,
    read_dequantize,
    read_quantize,
    shape_of,
)
from relay_passes.rewriting import BindingPass, Context, DeclineError, bindings_of, substitute
from relay_passes.tracing import channel_ids, follow, layout_chain


@dataclass(frozen=True)
class Leaf:
    """One quantizer and the layout operators between the root and it."""

    var: Expr
    quantizer: Quantizer
    chain: list[Expr]


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


class HoistQuantize(BindingPass):
    """Moves quantize above layout operators, and joins several into one per-channel quantizer.

    Before::

        y = linear(x)                       # (B, N, 3 C)
        q, k, v = split_heads(y)            # reshape, permute_dims, strided_slice
        quantize(q, s_q), quantize(k, s_k), quantize(v, s_v)

    After::

        y = quantize(linear(x), s, axis=2)  # s = s_q for channels of q, ...
        q, k, v = split_heads(y)

    so that the linear layer requantizes where it computes. Which channel ends in which quantizer
    is found by running the layout operators on channel numbers. Exact: each element meets the
    same scale, zero point and bounds as before.

    Refuses where a channel reaches two different quantizers, where the storage types differ, and
    leaves a root alone whose quantizers all follow it directly with one set of parameters.
    """

    def __init__(self) -> None:
        """Begin without groups."""
        super().__init__()
        self._groups: dict[Expr, Group] = {}
        self._definitions: dict[Expr, Expr] = {}
        self._mapping: dict[Expr, Expr] = {}

    def prepare(self, function: Expr) -> None:
        """Group the quantizers by the tensor they come from."""
        self._definitions = {b.var: b.value for b in bindings_of(function)}
        roots: dict[Expr, Group] = {}
        for binding in bindings_of(function):
            quantizer = read_quantize(binding.value)
            if quantizer is None:
                continue
            root, chain = layout_chain(quantizer.data, self._lookup)
            if root not in self._definitions or read_dequantize(self._lookup(root)) is not None:
                continue
            leaf = Leaf(binding.var, quantizer, chain)
            roots.setdefault(root, Group(root, [])).leaves.append(leaf)
        for group in roots.values():
            if len(group.leaves) > 1 or group.leaves[0].chain:
                self._groups.update({leaf.var: group for leaf in group.leaves})

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        group = self._groups.get(var)
        if group is None:
            return None
        leaf = next(leaf for leaf in group.leaves if leaf.var == var)
        quantizer = ctx.quantizer(value)
        assert quantizer is not None, "a leaf is a quantizer"
        root, _ = layout_chain(quantizer.data, ctx.definition)
        if group.codes is None:
            qparams = joined_quantizer(group, self._channel_axis(group.root))
            call = quantize_call(root, qparams, leaf.quantizer.dtype)
            group.codes = ctx.emit(call, "hoisted")
        codes = group.codes
        for layout in leaf.chain:
            if layout not in group.moved:
                moved = substitute(layout, {layout.args[0]: codes})
                group.moved[layout] = ctx.emit(moved, "layout")
            codes = group.moved[layout]
        return codes

    def _lookup(self, expr: Expr) -> Expr:
        """A variable's definition before the pass."""
        return self._definitions.get(expr, expr)

    def _channel_axis(self, root: Expr) -> int:
        """Axis 1 of a convolution (a bias may follow), the last axis of anything else."""
        call = self._lookup(root)
        if op_name(call) == "relax.add":
            call = self._lookup(call.args[0])
        return 1 if op_name(call) == "relax.nn.conv2d" else len(shape_of(root)) - 1


def joined_quantizer(group: Group, axis: int) -> QuantParams:
    """One quantizer of the root that equals all quantizers of its parts.

    Args:
        group: the quantizers.
        axis: the root's channel axis.

    Returns:
        Per tensor where all agree, otherwise per channel.

    Raises:
        DeclineError: where they cannot be joined.
    """
    first = group.leaves[0].quantizer
    if any(leaf.quantizer.dtype != first.dtype for leaf in group.leaves):
        types = sorted({leaf.quantizer.dtype for leaf in group.leaves})
        raise DeclineError(f"one tensor is quantized to different types: {', '.join(types)}")
    bounds = first.qparams.qmin, first.qparams.qmax
    if any((q.qmin, q.qmax) != bounds for q in (leaf.quantizer.qparams for leaf in group.leaves)):
        raise DeclineError("one tensor is quantized with different bounds")
    channels = shape_of(group.root)[axis]
    scale = np.zeros(channels, np.float32)
    zero_point = np.zeros(channels, np.int32)
    for leaf in group.leaves:
        ids = follow(channel_ids(group.root, axis), leaf.chain)
        _assign(scale, zero_point, ids, leaf.quantizer)
    used = scale > 0
    scale[~used], zero_point[~used] = scale[used][0], zero_point[used][0]
    if np.all(scale == scale[0]) and np.all(zero_point == zero_point[0]):
        return QuantParams(scale[0], zero_point[0], *bounds, PerTensor())
    return QuantParams(scale, zero_point, *bounds, PerAxis(axis))


def _assign(scale: FloatArray, zero_point: IntArray, ids: IntArray, quantizer: Quantizer) -> None:
    """Write one quantizer into its channels' entries; refuse a second, different one."""
    if quantizer.is_per_tensor:
        reached = np.zeros(len(scale), bool)
        reached[ids.reshape(-1)] = True
        ids = np.flatnonzero(reached)
    scales, zeros = quantizer.qparams.along(ids.ndim)
    scales, zeros = np.broadcast_to(scales, ids.shape), np.broadcast_to(zeros, ids.shape)
    free = scale[ids] == 0
    scale[ids] = np.where(free, scales, scale[ids])
    zero_point[ids] = np.where(free, zeros, zero_point[ids])
    same = (scale[ids] == scales) & (zero_point[ids] == zeros)
    if not np.all(same):
        channel = int(ids[~same][0])
        raise DeclineError(f"channel {channel} would get two different quantizers")
