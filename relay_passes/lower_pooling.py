"""LowerPooling: the mean over tokens becomes an integer mean."""

from tvm import relax

from vitq.numerics.pooling import mean_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of, ints, normalize_axis, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerPooling(BindingPass):
    """Lowers quantize(mean over axis 1) to ``vitq.mean``.

    Before -> after::

        quantize(mean(dequantize(x, s_x, z_x), axis=1), s, z)          # x: (B, L, C)
        -> vitq.mean(x, (multiplier, shift, z_x, z, qmin, qmax))

    with ``multiplier / 2**shift = s_x / (L * s)``: one rounding. Refuses other axes, other ranks,
    codes over 16 bits and per-channel scales.
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        mean = None if out is None else ctx.call(out.data, "relax.mean")
        if out is None or mean is None:
            return None
        shape = shape_of(mean.args[0])
        axes = [] if mean.attrs.axis is None else ints(mean.attrs.axis)
        if len(shape) != 3 or [normalize_axis(axis, 3) for axis in axes] != [1]:
            raise DeclineError("a mean that is not over axis 1 of (B, L, C)")
        codes = ctx.codes(mean.args[0])
        if codes is None:
            raise DeclineError("the input is not quantized")
        if not (codes.is_per_tensor and out.is_per_tensor):
            raise DeclineError("a scale for each channel")
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the input has {dtype_of(codes.codes)} codes: 16 bits at most")
        params = mean_params(float(codes.scale), int(codes.zero_point), shape[1], out.qparams)
        pooled = dialect.mean(codes.codes, params, out.dtype)
        if not mean.attrs.keepdims:
            return pooled
        return relax.op.reshape(ctx.emit(pooled, "pooled"), shape_of(mean))
