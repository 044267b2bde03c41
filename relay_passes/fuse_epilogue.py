"""FuseEpilogue: a linear layer and the element-wise operator behind it become one operator."""

from tvm import relax

from vitq.numerics.add import AddParams
from vitq.numerics.shiftgelu import GeluParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, bindings_of, dtype_of, op_name, shape_of, uses_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class FuseEpilogue(BindingPass):
    """Joins ``vitq.linear`` with the residual addition or the GELU that alone reads it.

    Before -> after::

        vitq.shiftgelu(vitq.linear(x, ...))                ->  vitq.linear_gelu(x, ...)
        vitq.add(vitq.linear(x, ...), b)                   ->  vitq.linear_add(x, ..., b)
        vitq.add(a, vitq.linear(x, ...))                   ->  vitq.linear_add(x, ..., a)

    Exact: the layer's codes are computed, rounded and clamped as before, they only are not stored.
    The addition is symmetric, so that its second form exchanges the parameters of a and b. Declines
    where something else reads the codes, or where the summands have different shapes.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def __init__(self) -> None:
        """Begin without readers."""
        super().__init__()
        self._read_once: set[Expr] = set()
        self._sources: dict[Expr, list[Expr]] = {}

    def prepare(self, function: Expr) -> None:
        """Find the variables that one binding reads once, and what fusable bindings read."""
        result = function.body.body
        outputs = set(result.fields) if isinstance(result, relax.Tuple) else {result}
        uses = uses_of(function)
        self._read_once = {v for v, readers in uses.items() if len(readers) == 1} - outputs
        self._sources = {
            binding.var: dialect.operands(binding.value)
            for binding in bindings_of(function)
            if op_name(binding.value) in (names.ADD, names.SHIFTGELU)
        }

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if var not in self._sources:
            return None
        *summands, _ = dialect.operands(value)
        found = [ctx.call(operand, names.LINEAR) for operand in summands]
        if all(layer is None for layer in found):
            return None
        sources = self._sources[var]
        own = [
            i
            for i, layer in enumerate(found)
            if layer is not None and sources[i] in self._read_once
        ]
        if not own:
            raise DeclineError("the linear layer's codes have another reader")
        layer = found[own[0]]
        if not dialect.is_words(layer):
            raise DeclineError(f"the linear layer's codes are {dtype_of(layer)}")
        if op_name(value) == names.SHIFTGELU:
            params = GeluParams(*dialect.scalars(value))
            return dialect.linear_gelu(layer, params, dtype_of(value))
        return _fused_add(layer, summands, own[0], value)


def _fused_add(layer: Expr, summands: list[Expr], index: int, value: Expr) -> Expr:
    """`layer` is the definition of ``summands[index]``."""
    residual, p = summands[1 - index], AddParams(*dialect.scalars(value))
    if shape_of(residual) != shape_of(layer):
        raise DeclineError(f"the other summand has the shape {shape_of(residual)}")
    return dialect.linear_add(
        layer, residual, dialect.swap_summands(p) if index else p, dtype_of(value)
    )
