"""FuseEpilogue: a linear layer and the element-wise operator behind it become one operator."""

from tvm import relax

from vitq.numerics.add import AddParams
from vitq.numerics.shiftgelu import GeluParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, dtype_of, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.reshaped import SingleReaders, below_reshapes
from vitq.relay_passes.rewriting import BindingPass

LAYERS = {names.ADD: (names.LINEAR, names.GATHER_LINEAR), names.SHIFTGELU: (names.LINEAR,)}
"""By the operator that follows."""


class FuseEpilogue(BindingPass):
    """Joins ``vitq.linear`` with the residual addition or the GELU that alone reads it.

    Before -> after::

        vitq.shiftgelu(vitq.linear(x, ...))                ->  vitq.linear_gelu(x, ...)
        vitq.add(vitq.linear(x, ...), b)                   ->  vitq.linear_add(x, ..., b)
        vitq.add(a, vitq.linear(x, ...))                   ->  vitq.linear_add(x, ..., a)

    (also where the codes are reshaped between them; and ``vitq.gather_linear`` with an addition).
    Exact: the layer's codes are computed, rounded and clamped as before, they only are not stored.
    The addition is symmetric, so that its second form exchanges the parameters of a and b. Declines
    where something else reads the codes, or where the summands have different shapes.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def __init__(self) -> None:
        """Begin without readers."""
        super().__init__()
        self._single = SingleReaders()

    def prepare(self, function: Expr) -> None:
        """Find what one binding reads alone."""
        self._single = SingleReaders(function)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        layers = LAYERS.get(op_name(value))
        if layers is None:
            return None
        *summands, _ = dialect.operands(value)
        found = [below_reshapes(operand, ctx) for operand in summands]
        if all(op_name(layer) not in layers for layer in found):
            return None
        own = [
            i
            for i, layer in enumerate(found)
            if op_name(layer) in layers and self._single.reads_alone(var, *layers, operand=i)
        ]
        if not own:
            raise DeclineError("the linear layer's codes have another reader")
        layer = found[own[0]]
        if not dialect.is_words(layer):
            raise DeclineError(f"the linear layer's codes are {dtype_of(layer)}")
        if op_name(value) == names.SHIFTGELU:
            params = GeluParams(*dialect.scalars(value))
            fused = dialect.linear_gelu(layer, params, dtype_of(value))
            return _shaped(ctx.emit(fused, "fused"), value)
        return _fused_add(layer, summands, own[0], value, ctx)


def _fused_add(layer: Expr, summands: list[Expr], index: int, value: Expr, ctx: Context) -> Expr:
    """`layer` is the definition of ``summands[index]``."""
    residual, p = summands[1 - index], AddParams(*dialect.scalars(value))
    if shape_of(residual) != shape_of(summands[index]):
        raise DeclineError(f"the other summand has the shape {shape_of(residual)}")
    if shape_of(residual) != shape_of(layer):
        residual = ctx.emit(_shaped(residual, layer), "residual")
    added = dialect.linear_add(
        layer, residual, dialect.swap_summands(p) if index else p, dtype_of(value)
    )
    return _shaped(ctx.emit(added, "fused"), value)


def _shaped(var: Expr, like: Expr) -> Expr:
    """Return a tensor in another one's shape."""
    return var if shape_of(var) == shape_of(like) else relax.op.reshape(var, shape_of(like))
