"""SinkDequantize: layout happens on integers."""

import numpy as np
from tvm import relax

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect.names import DEQUANTIZE
from vitq.relay_passes.expressions import (
    PAD,
    TAKE,
    Expr,
    ints,
    is_layout,
    normalize_axis,
    op_name,
    shape_of,
)
from vitq.relay_passes.properties import MOVABLE, Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, read_dequantize
from vitq.relay_passes.reading.relax_numpy import slices_of
from vitq.relay_passes.rewriting import BindingPass


class SinkDequantize(BindingPass):
    """Moves dequantize below layout operators.

    Before -> after::

        layout(dequantize(x, s, z))                    -> dequantize(layout(x), s, z)
        concat(dequantize(a, s, z), dequantize(b, s, z)) -> dequantize(concat(a, b), s, z)
        max(dequantize(x, s, z), axis)                 -> dequantize(maximum of slices of x, s, z)

    for reshape, permute_dims, strided_slice, take, broadcast_to and nn.pad, which then pads with
    the zero point. Exact: dequantize is elementwise, and a pad's zeros are real ones.
    The largest code is that of the largest value; the axis is halved until one index is left. A
    maximum that keeps its axis is a softmax's and stays. A per-channel scale follows its axis;
    refuses where the axis is merged or split, and a concat of different scales.
    """

    requires = (Property.LAYOUT_CANONICAL,)
    ensures = (Property.LAYOUT_ON_CODES,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        name = op_name(value)
        if is_layout(value, MOVABLE):
            codes = ctx.codes(value.args[0])
            return None if codes is None else _move(value, codes, ctx)
        if name == "relax.concat":
            return _concat(value, ctx)
        if name == "relax.max" and not value.attrs.keepdims:
            return _largest(value, ctx)
        return None


def _largest(call: Expr, ctx: Context) -> Expr | None:
    """Return the maximum over one axis, which goes, of codes of one scale."""
    codes = ctx.codes(call.args[0])
    if codes is None:
        return None
    shape, axes = shape_of(call.args[0]), ints(call.attrs.axis or ())
    if not codes.is_per_tensor or len(axes) != 1:
        raise DeclineError("a maximum over several axes, or of a scale for each channel")
    axis, found = normalize_axis(axes[0], len(shape)), codes.codes
    while (size := shape_of(found)[axis]) > 1:
        half = (size + 1) // 2
        parts = [
            ctx.emit(relax.op.strided_slice(found, [axis], [start], [start + half]), "half")
            for start in (0, size - half)
        ]
        found = ctx.emit(relax.op.maximum(*parts), "larger")
    found = ctx.emit(relax.op.reshape(found, shape_of(call)), "codes")
    kept = Codes(found, codes.scale, codes.zero_point, None)
    return with_codes(ctx.definition(call.args[0]), kept)


def with_codes(original: Expr, codes: Codes) -> Expr:
    """Dequantize other codes in the same way: the file's float32 scale stays where it can."""
    if op_name(original) == DEQUANTIZE:
        return dialect.dequantize(codes.codes, codes.scale, codes.zero_point, codes.axis)
    return relax.Call(
        original.op, [codes.codes, *original.args[1:]], original.attrs, original.ty_args
    )


def _move(layout: Expr, codes: Codes, ctx: Context) -> Expr:
    """One layout operator and one dequantize change places."""
    scale, zero_point, axis = codes.scale, codes.zero_point, codes.axis
    if op_name(layout) == PAD:
        return _padded(layout, codes, ctx)
    if axis is not None:
        axis = moved_axis(layout, axis)
        if op_name(layout) == "relax.strided_slice":
            chosen = slices_of(layout)[axis]
            scale, zero_point = scale[chosen], zero_point[chosen]
        if op_name(layout) == TAKE and axis == int(layout.attrs.axis):
            chosen = layout.args[1].value.numpy()
            scale, zero_point = scale[chosen], zero_point[chosen]
    args = [codes.codes, *layout.args[1:]]
    moved = ctx.emit(relax.Call(layout.op, args, layout.attrs, layout.ty_args), "codes")
    original = ctx.definition(layout.args[0])
    if axis is None:
        return with_codes(original, Codes(moved, scale, zero_point, None))
    return dialect.dequantize(moved, scale, zero_point, axis)


def _padded(pad: Expr, codes: Codes, ctx: Context) -> Expr:
    """Pad codes with their zero point."""
    if not codes.is_per_tensor or str(pad.attrs.pad_mode) != "constant" or pad.attrs.pad_value != 0:
        raise DeclineError("a pad with something else than zeros, or a scale for each channel")
    width, zero_point = ints(pad.attrs.pad_width), int(codes.zero_point)
    moved = relax.op.nn.pad(codes.codes, list(width), pad_value=zero_point)
    kept = Codes(ctx.emit(moved, "codes"), codes.scale, codes.zero_point, None)
    return with_codes(ctx.definition(pad.args[0]), kept)


def moved_axis(layout: Expr, axis: int) -> int:
    """Where an axis is after a layout operator.

    Args:
        layout: reshape, permute_dims, strided_slice or broadcast_to.
        axis: of its operand.

    Returns:
        The same axis of its result.

    Raises:
        DeclineError: if a reshape merges or splits it.
    """
    before, after = shape_of(layout.args[0]), shape_of(layout)
    name = op_name(layout)
    if name in ("relax.strided_slice", TAKE):
        return axis
    if name == "relax.broadcast_to":
        if before[axis] == 1:
            raise DeclineError("a per-channel axis of one channel is broadcast")
        return axis + len(after) - len(before)
    if name == "relax.permute_dims":
        axes = layout.attrs.axes
        order = tuple(reversed(range(len(before)))) if axes is None else ints(axes)
        return [normalize_axis(a, len(before)) for a in order].index(axis)
    inner = int(np.prod(before[axis + 1 :], dtype=np.int64))
    for candidate, size in enumerate(after):
        same_inner = int(np.prod(after[candidate + 1 :], dtype=np.int64)) == inner
        if size == before[axis] and same_inner:
            return candidate
    raise DeclineError(f"reshape {before} to {after} breaks up the per-channel axis {axis}")


def _concat(concat: Expr, ctx: Context) -> Expr | None:
    """Concatenate codes where all parts have one scale."""
    fields = list(ctx.definition(concat.args[0]).fields)
    parts = [ctx.codes(field) for field in fields]
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if len(known) < len(parts):
        raise DeclineError("some parts of a concat are not dequantized codes")
    first = known[0]
    for part in known:
        if not (part.is_per_tensor and first.is_per_tensor):
            raise DeclineError("a concat of per-channel codes")
        if part.scale != first.scale or part.zero_point != first.zero_point:
            raise DeclineError("a concat of different scales without a quantizer behind it")
    codes = relax.Tuple([part.codes for part in known])
    joined = ctx.emit(relax.Call(concat.op, [codes], concat.attrs, concat.ty_args), "codes")
    original = read_origin(fields[0], ctx)
    return with_codes(original, Codes(joined, first.scale, first.zero_point, None))


def read_origin(expr: Expr, ctx: Context) -> Expr:
    """Return the dequantize call behind a tensor."""
    found = ctx.definition(expr)
    assert read_dequantize(found) is not None
    return found
