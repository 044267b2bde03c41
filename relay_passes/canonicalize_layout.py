"""CanonicalizeLayout: three layout operators instead of ten."""

import numpy as np
from tvm import relax

from vitq.numerics.arrays import IntArray
from vitq.relay_passes.expressions import (
    Expr,
    constant,
    dtype_of,
    ints,
    is_constant,
    normalize_axis,
    op_name,
    shape_of,
)
from vitq.relay_passes.properties import VIEWS, Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class CanonicalizeLayout(BindingPass):
    """Writes layout as reshape, permute_dims and strided_slice.

    ==============================================  =============================================
    before                                          after
    ==============================================  =============================================
    squeeze, expand_dims, flatten                   reshape
    take(x, scalar constant i, axis)                reshape(strided_slice(x, i:i+1))
    take(x, [i, i+1, ...], axis)                    strided_slice(x, i:i+n)
    split(x, axis)[j]                               strided_slice(x, begin:end)
    astype to the same type, reshape to the same    x
    shape, broadcast_to the same shape
    ==============================================  =============================================

    Exact. Other takes of constant indices count them and the axis from the front, in int64. Refuses
    a take whose indices are not constant.
    """

    requires = (Property.CONSTANTS_FOLDED,)
    ensures = (Property.LAYOUT_CANONICAL,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if isinstance(value, relax.TupleGetItem):
            return self._split(value, ctx)
        name = op_name(value)
        if name in ("relax.reshape", "relax.broadcast_to") or name in VIEWS:
            data = value.args[0]
            if shape_of(data) == shape_of(value):
                return data
            return relax.op.reshape(data, shape_of(value)) if name in VIEWS else None
        if name == "relax.astype":
            return value.args[0] if dtype_of(value) == dtype_of(value.args[0]) else None
        return self._take(value, ctx) if name == "relax.take" else None

    def _take(self, call: Expr, ctx: Context) -> Expr | None:
        """Rewrite a take of constant indices."""
        data, indices = call.args
        if not is_constant(indices):
            raise DeclineError("the indices are not constant")
        if call.attrs.axis is None:
            raise DeclineError("take without an axis")
        axis = normalize_axis(int(call.attrs.axis), len(shape_of(data)))
        wanted = np.atleast_1d(indices.value.numpy()).astype(np.int64)
        size = shape_of(data)[axis]
        wanted = np.where(wanted < 0, wanted + size, wanted)
        if wanted.ndim != 1:
            raise DeclineError(f"indices of shape {wanted.shape}")
        if np.any(np.diff(wanted) != 1):
            return _plain_take(data, wanted, axis, call)
        first = int(wanted[0])
        part = relax.op.strided_slice(data, [axis], [first], [first + len(wanted)])
        if indices.value.numpy().ndim == 1:
            return part
        return relax.op.reshape(ctx.emit(part), shape_of(call))

    def _split(self, item: Expr, ctx: Context) -> Expr | None:
        """One part of a split."""
        split = ctx.call(item.tuple_value, "relax.split")
        if split is None:
            return None
        axis = normalize_axis(int(split.attrs.axis), len(shape_of(split.args[0])))
        sizes = [int(field.shape.values[axis]) for field in split.ty.fields]
        begin = sum(sizes[: item.index])
        return relax.op.strided_slice(split.args[0], [axis], [begin], [begin + sizes[item.index]])


def _plain_take(data: Expr, wanted: IntArray, axis: int, call: Expr) -> Expr | None:
    """Return a take in its one form, None for one that has it.

    Its mode is "clip", which changes nothing for indices that are there: TVM warns of "fast".
    """
    given = call.args[1].value.numpy()
    same = np.array_equal(given, wanted) and given.dtype == np.int64
    if same and int(call.attrs.axis) == axis and str(call.attrs.mode) == "clip":
        return None
    return relax.op.take(data, constant(wanted), axis=axis, mode="clip")


def slice_ranges(call: Expr) -> list[tuple[int, int, int]]:
    """(axis, begin, end) of a unit-stride slice; refuses other strides."""
    axes, begin, end = (ints(arg) for arg in call.args[1:4])
    if len(call.args) > 4 and any(step != 1 for step in ints(call.args[4])):
        raise DeclineError("a slice has a stride")
    return list(zip(axes, begin, end, strict=True))
