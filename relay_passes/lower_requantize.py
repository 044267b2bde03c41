"""LowerRequantize: a change of scale becomes a dyadic multiplication."""

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.requantize import int_requantize, requantize_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, constant, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerRequantize(BindingPass):
    """Lowers quantize(dequantize) to ``vitq.requantize``.

    Before -> after::

        quantize(dequantize(x, s_x, z_x), s, z)
        -> vitq.requantize(x, dyadic(s_x / s), (z_x, z, qmin, qmax))

    x: codes or an accumulator. Constant codes are requantized here, by the same integers. Scales
    are per tensor or along the last axis. Refuses per-channel zero points and other axes.
    Error: one rounding (HALF_UP) and 2**-31 relative.
    """

    requires = (Property.LAYERS_LOWERED, Property.PRODUCTS_LOWERED, Property.SOFTMAX_LOWERED)
    ensures = (Property.FLOATS_LOWERED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        codes = None if out is None else ctx.codes(out.data)
        if out is None or codes is None:
            return None
        last = len(shape_of(codes.codes)) - 1
        if codes.axis not in (None, last) or out.axis not in (None, last):
            raise DeclineError("a scale for each index of an axis that is not the last")
        _single(out.qparams.zero_point, "output")
        params = requantize_params(codes.scale, _single(codes.zero_point, "input"), out.qparams)
        if codes.array is not None:
            return constant(int_requantize(codes.array, params), out.dtype)
        return dialect.requantize(codes.codes, params, out.dtype)


def _single(zero_point: IntArray, what: str) -> int:
    """Return the one zero point that all channels share."""
    values = np.unique(zero_point)
    if values.size != 1:
        raise DeclineError(f"the {what} has a zero point for each channel")
    return int(values[0])
