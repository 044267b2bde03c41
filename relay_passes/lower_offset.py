"""LowerOffset: a constant added to attention scores is added to their integers."""

import numpy as np

from vitq.numerics.offset import masked, offset_codes
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, op_name, shape_of
from vitq.relay_passes.fold_scalar_multiply import FoldScalarMultiply
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass
from vitq.relay_passes.sink_dequantize import SinkDequantize


class LowerOffset(BindingPass):
    """Lowers the biases and masks between a product of scores and what reads it.

    Before -> after, c a float constant that broadcasts to x::

        add(dequantize(x, s, z), c)  ->  vitq.dequantize(vitq.offset(x, round(c / s)), s, z)

    Error: half a step of the scores (`numerics.offset`, also for masks). A second constant may
    stand behind a view or a factor of the first one's result: dequantize moves below layout
    (`SinkDequantize`) and into the scale (`FoldScalarMultiply`) in the same walk. Leaves additions
    of dequantized codes to `LowerAdd`, and biases of layers alone; refuses a scale for each
    channel, and a constant that is larger than the scores.
    """

    requires = (Property.PRODUCTS_LOWERED,)

    def __init__(self) -> None:
        """Begin with the passes that run in the same walk."""
        super().__init__()
        self._others: tuple[BindingPass, ...] = (SinkDequantize(), FoldScalarMultiply())

    def prepare(self, function: Expr) -> None:
        """Let the others look at the function."""
        for other in self._others:
            other.prepare(function)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) == "relax.add":
            return _lowered(value, ctx)
        for other in self._others:
            found = other.rewrite(var, value, ctx)
            if found is not None:
                return found
        return None


def _lowered(total: Expr, ctx: Context) -> Expr | None:
    """Add a constant to integers."""
    x, offset = ctx.codes(total.args[0]), ctx.real(total.args[1])
    if x is None or offset is None or ctx.codes(total.args[1]) is not None:
        return None
    if not x.is_per_tensor:
        raise DeclineError("a constant is added to a scale for each channel")
    if shape_of(x.codes) != shape_of(total):
        raise DeclineError(f"a constant of shape {offset.shape} is added to smaller scores")
    codes = offset_codes(masked(np.asarray(offset)), float(x.scale))
    moved = ctx.emit(dialect.offset(x.codes, codes), "offset")
    return dialect.dequantize(moved, x.scale, x.zero_point, None)
