"""LowerRowMoves: layout that moves whole rows becomes one table."""

import numpy as np
from tvm import relax

from vitq.numerics.arrays import IntArray
from vitq.numerics.rows import MISSING, row_table, split_table
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    LAYOUT_OPS,
    PAD,
    TAKE,
    Expr,
    dtype_of,
    is_layout,
    op_name,
    shape_of,
    uses_of,
)
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.tracing import element_ids, element_order_kept, follow, layout_chain
from vitq.relay_passes.rewriting import BindingPass

CHAIN = (*LAYOUT_OPS, PAD)
SHUFFLES = ("relax.permute_dims", TAKE, PAD)


class LowerRowMoves(BindingPass):
    """Replaces chains of layout operators between operators that treat each token alike.

    Before -> after, x (..., C), with any roll, pad, partition, reverse, crop or merge of tokens::

        reshape(permute_dims(reshape(take(x, [3, 4, ..., 0, 1, 2]))))
        -> reshape(vitq.gather_rows(reshape(x, (B, R, C)), rows))

    Which row ends where is found by following element numbers; B is the largest number of equal
    parts that all move alike, so that the table is one picture's or less. Rows are as wide as any
    shape on the way allows (heads that are merged before tokens move). A pad's rows are the code
    that it pads with. Exact. Leaves chains that split rows (heads), those that keep the order of
    elements, and slices alone. Refuses pads of different codes.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def __init__(self) -> None:
        """Begin without readers."""
        super().__init__()
        self._inner: set[Expr] = set()

    def prepare(self, function: Expr) -> None:
        """Find the variables that only other layout operators read."""
        result = function.body.body
        outputs = set(result.fields) if isinstance(result, relax.Tuple) else {result}
        self._inner = {
            var
            for var, readers in uses_of(function).items()
            if all(is_layout(reader.value, CHAIN) for reader in readers) and var not in outputs
        }

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if not is_layout(value, CHAIN) or var in self._inner:
            return None
        root, chain = layout_chain(value.args[0], ctx.definition, CHAIN)
        chain = [*chain, value]
        shape = shape_of(root)
        if len(shape) < 2 or not any(op_name(call) in SHUFFLES for call in chain):
            return None
        if dtype_of(root) == "float32" or element_order_kept(chain):
            return None
        ids = follow(element_ids(root), chain)
        for channels in sorted({shape[-1], *(shape_of(call)[-1] for call in chain)}, reverse=True):
            found = row_table(ids, channels) if ids.size and channels >= shape[-1] else None
            if found is not None and int(np.prod(shape)) % channels == 0:
                return _gathered(root, found, channels, chain, ctx)
        return None


def _gathered(root: Expr, found: IntArray, channels: int, chain: list[Expr], ctx: Context) -> Expr:
    """Return the gather of a table, in the shape of the chain's result."""
    fills = {int(call.attrs.pad_value) for call in chain if op_name(call) == PAD}
    if len(fills) > 1:
        raise DeclineError(f"pads of different codes: {sorted(fills)}")
    rows = int(np.prod(shape_of(root))) // channels
    table, groups = split_table(found, rows)
    x = ctx.emit(relax.op.reshape(root, (groups, rows // groups, channels)), "rows")
    fill = fills.pop() if (table == MISSING).any() else 0
    moved = ctx.emit(dialect.gather_rows(x, table, fill), "moved")
    return relax.op.reshape(moved, shape_of(chain[-1]))
