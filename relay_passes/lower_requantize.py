"""LowerRequantize: a change of scale becomes a dyadic multiplication."""

import numpy as np

from vitq.numerics.dyadic import Dyadic, requantize, to_dyadic
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect.calls import RequantizeParams
from vitq.relay_passes.expressions import Expr, constant, shape_of
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, Quantizer
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

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        codes = None if out is None else ctx.codes(out.data)
        if out is None or codes is None:
            return None
        dyadic = to_dyadic(_factor(codes, out))
        params = RequantizeParams(
            _single(codes.zero_point, "input"),
            _single(out.qparams.zero_point, "output"),
            out.qparams.qmin,
            out.qparams.qmax,
        )
        if codes.array is not None:
            return constant(_evaluate(codes, dyadic, params), out.dtype)
        return dialect.requantize(codes.codes, dyadic, params, out.dtype)


def _factor(codes: Codes, out: Quantizer) -> np.ndarray:
    """Input scale over output scale, () or (C,)."""
    last = len(shape_of(codes.codes)) - 1
    if codes.axis not in (None, last) or out.axis not in (None, last):
        raise DeclineError("a scale for each index of an axis that is not the last")
    return np.asarray(codes.scale / out.qparams.scale.astype(np.float64))


def _single(zero_point: np.ndarray, what: str) -> int:
    """The one zero point that all channels share."""
    values = np.unique(zero_point)
    if values.size != 1:
        raise DeclineError(f"the {what} has a zero point for each channel")
    return int(values[0])


def _evaluate(codes: Codes, dyadic: Dyadic, p: RequantizeParams) -> np.ndarray:
    """Requantize constant codes."""
    assert codes.array is not None
    centred = codes.array.astype(np.int64) - p.x_zero_point
    return requantize(centred, dyadic, p.zero_point, p.qmin, p.qmax)
