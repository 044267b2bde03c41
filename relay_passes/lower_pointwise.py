"""LowerPointwise: a function of one number becomes a table of its codes."""

import logging

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.pointwise import Source, clamp_bounds, pointwise_table
from vitq.numerics.qparams import QuantParams, quantize
from vitq.numerics.requantize import int_requantize, requantize_params
from vitq.numerics.table import TableParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import LAYOUT_OPS, Expr, dtype_of, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.functions import Function, read_function
from vitq.relay_passes.reading.ranges import KnownOperands, Ranges, type_range
from vitq.relay_passes.rewriting import BindingPass

log = logging.getLogger(__name__)


class LowerPointwise(BindingPass):
    """Lowers a quantized function of one tensor's codes to ``vitq.lut``.

    Before -> after::

        quantize(f(dequantize(x)), s, z)    ->  vitq.lut(x, table)
        f: x * sigmoid(x), x * sigmoid(1.702 x), tanh(x), ... in any spelling

    with an entry for each code that x can hold, from `numerics.pointwise` where it knows f, else
    from f itself in float64, rounded half to even. Where x has a scale for each channel of its last
    axis, there is a table for each. Refuses codes over 16 bits and an output with a scale for each
    channel. GELU is no such function, in no spelling with erf: it has an operator of its own
    (`LowerShiftgelu`). Clamps come here where a quantizer's bounds cannot say them (`FoldClamp`).
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        function = None if out is None else read_function(out.data, ctx)
        if out is None or function is None:
            return None
        codes = function.codes
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the input has {dtype_of(codes.codes)} codes: 16 bits at most")
        last = len(shape_of(codes.codes)) - 1
        if codes.axis not in (None, last) or not out.is_per_tensor:
            raise DeclineError("a scale for each index of an axis that is not the input's last")
        if not function.name:
            log.info("%s: an unknown function of one number: its table is made in float", var)
        low, high = bounds_of(codes.codes, ctx)
        channels = zip(codes.scale.reshape(-1), codes.zero_point.reshape(-1), strict=True)
        bits = np.iinfo(dtype_of(codes.codes)).bits
        rows = [
            _table(function, Source(float(scale), int(zero), low, high, bits), out.qparams, ctx)
            for scale, zero in channels
        ]
        table = np.stack(rows).astype(out.dtype)
        return dialect.lut(codes.codes, table, TableParams(0 if len(rows) == 1 else last, low))


def _table(function: Function, source: Source, out: QuantParams, ctx: Context) -> IntArray:
    """Return the results for all codes of one channel."""
    if function.ends is not None:
        codes = np.arange(source.qmin, source.qmax + 1)
        params = requantize_params(source.scale, source.zero_point, out)
        return np.clip(int_requantize(codes, params), *clamp_bounds(function.ends, out))
    if function.name:
        return pointwise_table(function.name, source, out, function.parameter)
    codes = np.arange(source.qmin, source.qmax + 1) - source.zero_point
    real = function.values(codes * source.scale, ctx)
    if not np.all(np.isfinite(real)):
        raise DeclineError("a function of one number is not finite for some codes")
    return quantize(real, out).astype(np.int64)


def bounds_of(codes: Expr, ctx: Context) -> tuple[int, int]:
    """Return the codes that a tensor can hold: its operator's bounds, or its type's.

    Args:
        codes: integer codes, perhaps behind layout operators.
        ctx: the function being built.
    """
    source = ctx.definition(codes)
    while op_name(source) in LAYOUT_OPS:
        source = ctx.definition(source.args[0])
    quantizer = ctx.quantizer(source)
    if quantizer is not None:
        return quantizer.qparams.qmin, quantizer.qparams.qmax
    if not dialect.is_dialect(source):
        return type_range(codes)
    known = KnownOperands(source, Ranges())
    low, high = dialect.record_of(source).codes(known, dialect.params_of(source))
    return low, high
