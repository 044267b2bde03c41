"""LowerLinear: a linear layer and its quantizer become one integer operator."""

import numpy as np

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, shape_of
from vitq.relay_passes.gemm import build_gemm, input_codes, split_product, weight_codes
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerLinear(BindingPass):
    """Lowers quantize(linear) to ``vitq.linear``.

    Before::

        quantize(matmul(dequantize(x), dequantize(W)) + bias, s_out, z_out)     # W: (K, N)

    After::

        vitq.linear(x, W.T, bias', multiplier, shift, z_out, (qmin, qmax))

    with ``multiplier / 2**shift = (s_x * s_w[c]) / s_out[c]`` and
    ``bias' = bias - z_x * sum_k W[k, c]``. The bias may be missing, float, or quantized. A factor
    behind the bias, ``c`` or one for each channel, makes it ``(s_x * s_w[c]) * c / s_out[c]``.

    Refuses an input that is not 8-bit per tensor, weights that are not symmetric int8 per tensor
    or per output channel, an output quantizer along another axis, and factors that are not
    positive or not one for each output channel.
    Error against the float graph: a tie may round the other way, and 2**-31 relative from the
    dyadic number.
    """

    requires = (Property.QUANTIZERS_HOISTED, Property.QDQ_CANONICAL)
    ensures = (Property.LAYERS_LOWERED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        parts = split_product(out.data, ctx, "relax.matmul")
        if parts is None:
            return None
        product = parts.call
        found = ctx.codes(product.args[1])
        if found is None or found.array is None:
            if ctx.real(product.args[1]) is not None:
                raise DeclineError("the weight is a float constant: it has no quantizer")
            return None  # a product of two activations: LowerMatmul
        if len(shape_of(found.codes)) != 2:
            return None  # a constant for each picture or head: LowerMatmul
        weight = weight_codes(found, "weight")
        if weight.axis == 0:
            raise DeclineError("the weight is not (K, N) with a scale for each output channel")
        x = input_codes(ctx.codes(product.args[0]))
        axis = len(shape_of(product)) - 1
        if out.axis not in (None, axis):
            raise DeclineError(f"the output's quantizer lies along axis {out.axis}")
        matrix = np.ascontiguousarray(found.array.T)
        gemm = build_gemm(x, matrix, weight.scale, parts, axis, out, ctx)
        return dialect.linear(x.codes, gemm, out.dtype)
