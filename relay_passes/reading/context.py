"""What a pass sees of the function that it builds, and how it declines."""

from tvm import relax

from vitq.numerics.arrays import FloatArray
from vitq.relay_passes.expressions import Expr, op_name
from vitq.relay_passes.reading.matching import (
    Codes,
    Quantizer,
    read_dequantize,
    read_quantize,
    real_constant,
)


class DeclineError(Exception):
    """A pattern begins to match and cannot go on; the message says why."""


class Context:
    """What a pass sees of the function it builds, and where it adds to it."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        """Begin with nothing built."""
        self._builder = builder
        self.current = ""

    def definition(self, expr: Expr) -> Expr:
        """Return what a variable was bound to; any other expression, and a parameter, is itself."""
        while isinstance(expr, relax.Var):
            bound = self._builder.lookup_binding(expr)
            if bound is None:
                break
            expr = bound
        return expr

    def typed(self, expr: Expr) -> Expr:
        """Return the expression with its type inferred: substitution drops it."""
        return self._builder.normalize(expr)

    def bind(self, expr: Expr) -> Expr:
        """Bind the result of the binding being rewritten, under its old name."""
        return self._builder.emit(expr, self.current)

    def emit(self, expr: Expr, suffix: str = "part") -> Expr:
        """Bind an intermediate result, named after the binding being rewritten."""
        return self._builder.emit(expr, f"{self.current}_{suffix}")

    def call(self, expr: Expr, *names: str) -> Expr | None:
        """Return the definition of `expr` if it is a call of one of `names`."""
        found = self.definition(expr)
        return found if op_name(found) in names else None

    def codes(self, expr: Expr) -> Codes | None:
        """Return the integer codes behind a dequantized tensor."""
        return read_dequantize(self.definition(expr))

    def quantizer(self, expr: Expr) -> Quantizer | None:
        """Return the quantizer that a tensor of codes came from."""
        return read_quantize(self.definition(expr))

    def real(self, expr: Expr) -> FloatArray | None:
        """Return the real values of a float constant or of dequantized constant codes, float64."""
        return real_constant(self.definition(expr))
