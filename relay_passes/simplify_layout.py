"""SimplifyLayout: layout operators that undo each other disappear."""

from tvm import relax

from vitq.relay_passes.expressions import Expr, ints, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.reading.tracing import element_order_kept, layout_chain
from vitq.relay_passes.rewriting import BindingPass

MOVERS = ("relax.reshape", "relax.permute_dims")


class SimplifyLayout(BindingPass):
    """Merges and cancels chains of reshape and permute_dims.

    Before -> after::

        any chain that keeps the order of elements  ->  reshape, or nothing
        permute_dims(permute_dims(x, p), q)         ->  permute_dims(x, p[q])
        reshape(reshape(x))                         ->  reshape(x)

    The first row is decided by running the chain on element numbers, so that it also finds
    ``reshape -> permute -> reshape -> permute`` (a patch grid turned back into tokens). Exact.
    """

    requires = (Property.LAYOUT_CANONICAL,)
    ensures = (Property.LAYOUT_SIMPLE,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        name = op_name(value)
        if name not in MOVERS:
            return None
        _, chain = layout_chain(value.args[0], ctx.definition, MOVERS)
        chain = [*chain, value]
        for start in range(len(chain)):
            source = chain[start].args[0]
            if element_order_kept(chain[start:]):
                return _reshaped(source, shape_of(value))
        inner = ctx.call(value.args[0], "relax.permute_dims")
        if name == "relax.permute_dims" and inner is not None:
            first, second = axes_of(inner), axes_of(value)
            return relax.op.permute_dims(inner.args[0], [first[axis] for axis in second])
        return None


def _reshaped(source: Expr, shape: tuple[int, ...]) -> Expr:
    """Return the source itself where its shape is right."""
    return source if shape_of(source) == shape else relax.op.reshape(source, shape)


def axes_of(permute: Expr) -> list[int]:
    """Return the axes of a permute_dims call; None in Relax means reversed."""
    rank = len(shape_of(permute.args[0]))
    axes = permute.attrs.axes
    order = range(rank - 1, -1, -1) if axes is None else ints(axes)
    return [axis % rank for axis in order]
