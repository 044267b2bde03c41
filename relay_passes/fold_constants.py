"""FoldConstants: evaluates what depends on constants and static shapes only."""

from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.arrays import IntArray
from vitq.relay_passes.expressions import Expr, constant, dtype_of, is_constant, op_name, shape_of
from vitq.relay_passes.interpreter.interpreter import evaluate
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import QUANTIZERS, Quantizer
from vitq.relay_passes.reading.relax_numpy import ELEMENTWISE, LAYOUT
from vitq.relay_passes.rewriting import BindingPass

QUANTIZED = {name: int(name != "relax.quantize") for name in QUANTIZERS}
"""Which operand is quantized."""
FOLDABLE = frozenset(LAYOUT) | frozenset(ELEMENTWISE)


class FoldConstants(BindingPass):
    """Layout and arithmetic of constants become constants.

    Before::

        s = shape_to_tensor(shape_of(x));  i = where(less(0, 0), 0 + take(s, 0), 0);  y = take(x, i)

    After::

        y = take(x, 0)

    (That is how the ONNX frontend writes a Gather.) And the float weights of tools that train with
    quantizers, and a class token, become the codes that they stand for::

        quantize(w, s, z)  ->  clip(rint(w / s) + z)       divided in float32, as ONNX says

    ``dequantize`` of constants stays: the integer codes are what later passes need. Exact: integers
    and layout only change place, other floats are computed in float64 and rounded once to their
    type. Declines to quantize a constant that is not finite.
    """

    requires = (Property.STATIC_SHAPES,)
    ensures = (Property.CONSTANTS_FOLDED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        name = op_name(value)
        if name in QUANTIZERS and is_constant(value.args[QUANTIZED[name]]):
            quantizer = ctx.quantizer(value)
            return None if quantizer is None else constant(codes_of(quantizer))
        if name == "relax.shape_of":
            return relax.ShapeExpr(list(shape_of(value.args[0])))
        if name not in FOLDABLE or name == "relax.split":
            return None
        if name == "relax.shape_to_tensor":
            shape = ctx.definition(value.args[0])
            known = isinstance(shape, relax.ShapeExpr)
            return constant(evaluate(value, [[int(d) for d in shape.values]])) if known else None
        arguments: list[Any] = []
        for arg in value.args:
            if isinstance(arg, relax.Tuple) and name == "relax.concat":
                if not all(is_constant(field) for field in arg.fields):
                    return None
                arguments.append(tuple(field.value.numpy() for field in arg.fields))
            elif isinstance(arg, relax.Var):
                return None
            else:
                arguments.append(arg.value.numpy() if is_constant(arg) else None)
        return constant(evaluate(value, arguments), dtype_of(value))


def codes_of(quantizer: Quantizer) -> IntArray:
    """Return what a quantizer makes of a constant.

    Raises:
        DeclineError: for a constant that is not finite.
    """
    real = quantizer.data.value.numpy().astype(np.float32)
    scale, zero_point = quantizer.qparams.along(real.ndim)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        steps = np.rint(real / scale.astype(np.float32)).astype(np.float64)
    if not np.all(np.isfinite(steps)):
        raise DeclineError("a constant that is quantized is not finite in steps of its scale")
    qparams = quantizer.qparams
    return np.clip(steps + zero_point, qparams.qmin, qparams.qmax).astype(quantizer.dtype)
