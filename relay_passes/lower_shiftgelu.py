"""LowerShiftgelu: GELU becomes ShiftGELU."""

from dataclasses import replace

import numpy as np

from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import IvitGeluParams
from vitq.numerics.nonlinear import family_gelu_params
from vitq.numerics.twin import Twin
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Quantizer
from vitq.relay_passes.reading.twin import read_twin
from vitq.relay_passes.rewriting import BindingPass

SPELLING = 1e-6
"""Relative difference allowed between a file's 0.5 or sqrt(2) and the number itself."""


class LowerShiftgelu(BindingPass):
    """Lowers quantize(gelu) to ``vitq.shiftgelu``.

    Before -> after::

        quantize(gelu(dequantize(x)), s, z)                     -> vitq.shiftgelu(x)
        quantize(gelu_tanh(dequantize(x)), s, z)                -> vitq.shiftgelu(x)
        quantize(x (1 + erf(x / sqrt(2))) / 2) in any order      -> vitq.shiftgelu(x)
        quantize(dequantize(quantize(gelu)) + dequantize(quantize(gelu - t)))
                                                                 -> vitq.shiftgelu(x), twin ranges

    With nonlinear = ivit the result is ``vitq.ivit_shiftgelu(x)``, which depends on the maximum of
    the last axis: no pass may move a reshape or a transposition across a GELU.

    Error: see ``numerics/shiftgelu.py``; the tanh form is itself within 5e-4 of the erf form,
    which is what ShiftGELU approximates. Refuses codes over 16 bits and per-channel scales.
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def __init__(self, nonlinear: Nonlinear = Nonlinear.VITQ) -> None:
        """Choose the family."""
        super().__init__()
        self._nonlinear = nonlinear

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        twin = read_twin(out, ctx) if self._nonlinear.has_twin_gelu else None
        if twin is not None:
            return self._lowered(twin.data, replace(out, qparams=twin.out), twin.twin, ctx)
        call = ctx.call(out.data, "relax.nn.gelu", "relax.nn.gelu_tanh")
        data = call.args[0] if call is not None else erf_form(out.data, ctx)
        if data is None and ctx.call(out.data, "relax.erf") is not None:
            raise DeclineError(
                "quantizers lie between the steps of a GELU: export with opset 20 or later, whose "
                "Gelu is one operator"
            )
        return None if data is None else self._lowered(data, out, None, ctx)

    def _lowered(self, data: Expr, out: Quantizer, twin: Twin | None, ctx: Context) -> Expr:
        """Return the integer operator of the family."""
        codes = ctx.codes(data)
        if codes is None:
            raise DeclineError("the input is not quantized")
        if not (codes.is_per_tensor and out.is_per_tensor):
            raise DeclineError("a scale for each channel")
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the input has {dtype_of(codes.codes)} codes: 16 bits at most")
        scale, zero_point = float(codes.scale), int(codes.zero_point)
        params = family_gelu_params(self._nonlinear, scale, zero_point, out.qparams, twin)
        if isinstance(params, IvitGeluParams):
            return dialect.ivit_shiftgelu(codes.codes, params, out.dtype)
        return dialect.shiftgelu(codes.codes, params, out.dtype)


def _factors(expr: Expr, ctx: Context) -> tuple[float, list[Expr]]:
    """Split a product into its constant factor and its other factors."""
    constant, pending = 1.0, [expr]
    factors: list[Expr] = []
    while pending:
        current = pending.pop()
        call = ctx.call(current, "relax.multiply", "relax.divide")
        real = ctx.real(current)
        if real is not None and real.size == 1:
            constant *= float(real.reshape(()))
        elif call is not None and ctx.call(current, "relax.multiply") is not None:
            pending += list(call.args)
        elif call is not None and (divisor := ctx.real(call.args[1])) is not None:
            if divisor.size != 1:
                return constant, [*factors, current]
            constant /= float(divisor.reshape(()))
            pending.append(call.args[0])
        else:
            factors.append(current)
    return constant, factors


def erf_form(expr: Expr, ctx: Context) -> Expr | None:
    """Return the x of ``x * (1 + erf(x / sqrt(2))) * 0.5``, the factors in any order.

    Args:
        expr: the product.
        ctx: the function.

    Returns:
        x, or None where this is another product.
    """
    half, factors = _factors(expr, ctx)
    if len(factors) != 2 or not np.isclose(half, 0.5, rtol=SPELLING, atol=0):
        return None
    for data, other in (factors, factors[::-1]):
        total = ctx.call(other, "relax.add")
        one = None if total is None else ctx.real(total.args[1])
        if total is None or one is None or one.size != 1 or float(one.reshape(())) != 1.0:
            continue
        erf = ctx.call(total.args[0], "relax.erf")
        if erf is None:
            continue
        scale, inner = _factors(erf.args[0], ctx)
        same = len(inner) == 1 and inner[0] == data
        if same and np.isclose(scale, np.sqrt(0.5), rtol=SPELLING, atol=0):
            return data
    return None
