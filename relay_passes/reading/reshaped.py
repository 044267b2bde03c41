"""Looks through reshapes: what a tensor is but for its shape, and whether it has one reader."""

from typing import Any

from tvm import relax

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, bindings_of, op_name, uses_of
from vitq.relay_passes.reading.context import Context

RESHAPE = "relax.reshape"


def below_reshapes(expr: Expr, ctx: Context) -> Expr:
    """Return the definition behind any number of reshapes."""
    found = ctx.definition(expr)
    while op_name(found) == RESHAPE:
        found = ctx.definition(found.args[0])
    return found


class SingleReaders:
    """Which results of a function are read once."""

    def __init__(self, function: Expr | None = None) -> None:
        """Look at a function before a pass."""
        self._definitions: dict[Expr, Any] = {}
        self._once: set[Expr] = set()
        if function is None:
            return
        result = function.body.body
        outputs = set(result.fields) if isinstance(result, relax.Tuple) else {result}
        self._definitions = {b.var: b.value for b in bindings_of(function)}
        self._once = {v for v, uses in uses_of(function).items() if len(uses) == 1} - outputs

    def reads_alone(self, var: Expr, *operators: str, operand: int = 0) -> bool:
        """Whether a binding is all that reads an operator's result, through reshapes.

        Args:
            var: of the binding.
            operators: which ones.
            operand: of the binding's call.
        """
        expr = dialect.operands(self._definitions[var])[operand]
        while expr in self._once:
            found = self._definitions.get(expr)
            if found is None or op_name(found) != RESHAPE:
                return op_name(found) in operators
            expr = found.args[0]
        return False
