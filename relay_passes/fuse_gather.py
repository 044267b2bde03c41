"""FuseGather: a linear layer reads its rows through a table."""

from tvm import relax

from vitq.numerics.rows import MISSING
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.reading.reshaped import SingleReaders, below_reshapes
from vitq.relay_passes.rewriting import BindingPass


class FuseGather(BindingPass):
    """Joins ``vitq.gather_rows`` with the linear layer behind or before it.

    Before -> after, up to reshapes that keep rows whole::

        vitq.linear(vitq.gather_rows(x, rows), ...)   ->  vitq.gather_linear(x, rows, ...)
        vitq.gather_rows(vitq.linear(x, ...), rows)   ->  vitq.gather_linear(x, rows, ...)

    The second one holds because a linear layer treats every row alike: what is written through a
    table can as well be read through it. So a window's rows are read where the picture has them,
    and attention's result is read where its windows have it. Exact. Leaves tables with rows that
    are not there (their code would have to be multiplied), results with another reader, and tables
    that repeat rows behind a layer, which would be multiplied several times.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def __init__(self) -> None:
        """Begin without readers."""
        super().__init__()
        self._single = SingleReaders()

    def prepare(self, function: Expr) -> None:
        """Find the variables that one binding reads once."""
        self._single = SingleReaders(function)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) == names.LINEAR:
            gather = below_reshapes(dialect.operands(value)[0], ctx)
            if op_name(gather) != names.GATHER_ROWS:
                return None
            return _before(value, gather, ctx)
        if op_name(value) == names.GATHER_ROWS:
            layer = below_reshapes(dialect.operands(value)[0], ctx)
            if op_name(layer) != names.LINEAR or not self._single.reads_alone(var, names.LINEAR):
                return None
            return _behind(value, layer, ctx)
        return None


def _before(layer: Expr, gather: Expr, ctx: Context) -> Expr | None:
    """Let a layer read what a gather reads."""
    x, rows, _ = dialect.operands(gather)
    inner = shape_of(dialect.operands(layer)[0])[-1]
    if shape_of(x)[-1] != inner or _has_missing(rows):
        return None
    fused = ctx.emit(dialect.gather_linear(layer, x, rows), "linear")
    return relax.op.reshape(fused, shape_of(layer))


def _behind(gather: Expr, layer: Expr, ctx: Context) -> Expr | None:
    """Let a layer compute rows in the order in which they are gathered."""
    moved, rows, _ = dialect.operands(gather)
    groups, count, channels = shape_of(moved)
    if channels != shape_of(layer)[-1] or _has_missing(rows) or shape_of(rows)[0] > count:
        return None
    x = dialect.operands(layer)[0]
    split = ctx.emit(relax.op.reshape(x, (groups, count, shape_of(x)[-1])), "rows")
    return dialect.gather_linear(layer, split, rows)


def _has_missing(rows: Expr) -> bool:
    return bool((rows.value.numpy() == MISSING).any())
