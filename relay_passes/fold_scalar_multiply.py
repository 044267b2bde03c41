"""FoldScalarMultiply: a factor is a change of scale."""

import numpy as np
from tvm import relax

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, bindings_of, op_name, shape_of, uses_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.scaling import SCALINGS, constant_factor
from vitq.relay_passes.rewriting import BindingPass


class FoldScalarMultiply(BindingPass):
    """Folds multiplication and division by a positive constant into the scale.

    Before -> after::

        multiply(dequantize(x, s, z), c)              -> vitq.dequantize(x, s * c, z)
        divide(dequantize(x, s, z), c)                -> vitq.dequantize(x, s / c, z)
        multiply(dequantize(a) + dequantize(b), c)    -> the same with both scales times c

    (the attention's 1 / sqrt(D); the mean of two heads). Exact up to float64's rounding of the
    product. Refuses c <= 0, a constant that is not a scalar, and the steps of a GELU,
    ``x / sqrt(2)`` before erf and ``x / 2`` before a product: `LowerShiftgelu` reads them.
    """

    requires = (Property.QDQ_CANONICAL,)

    def __init__(self) -> None:
        """Begin without knowledge of uses."""
        super().__init__()
        self._gelu_steps: set[Expr] = set()

    def prepare(self, function: Expr) -> None:
        """Find what erf and products of two activations read."""
        definitions = {b.var: b.value for b in bindings_of(function)}
        for var, uses in uses_of(function).items():
            if any(_is_gelu_step(use.value, definitions) for use in uses):
                self._gelu_steps.add(var)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        name = op_name(value)
        if name not in SCALINGS or var in self._gelu_steps:
            return None
        real = ctx.real(value.args[1])
        if real is None or ctx.real(value.args[0]) is not None:
            return None
        if real.size != 1 or len(shape_of(value)) < real.ndim:
            raise DeclineError("the factor is not a scalar")
        factor = float(real.reshape(()))
        if not (np.isfinite(factor) and factor > 0):
            raise DeclineError(f"the factor {factor} is not positive")
        divide = name == "relax.divide"
        return _scaled(value.args[0], factor, divide, ctx)


def _is_gelu_step(reader: Expr, definitions: dict[Expr, Expr]) -> bool:
    """Whether a reader is an erf or a product without a constant factor."""
    if op_name(reader) == "relax.multiply":
        return constant_factor(reader, lambda arg: definitions.get(arg, arg)) is None
    return op_name(reader) == "relax.erf"


def _scaled(expr: Expr, factor: float, divide: bool, ctx: Context) -> Expr | None:
    """Return the tensor times or divided by a factor, as codes with another scale."""
    codes = ctx.codes(expr)
    if codes is not None:
        scale = codes.scale / factor if divide else codes.scale * factor
        return dialect.dequantize(codes.codes, scale, codes.zero_point, codes.axis)
    total = ctx.call(expr, "relax.add")
    if total is None:
        return None
    parts = [ctx.codes(part) for part in total.args]
    if any(part is None for part in parts):
        return None
    scaled = [ctx.emit(_scaled(part, factor, divide, ctx), "scaled") for part in total.args]
    return relax.op.add(*scaled)
