"""LowerMultiply: a product of two tensors becomes an integer product."""

from vitq.numerics.multiply import multiply_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes
from vitq.relay_passes.reading.scaling import scaled_chain
from vitq.relay_passes.rewriting import BindingPass


class LowerMultiply(BindingPass):
    """Lowers quantize(multiply) to ``vitq.multiply``.

    Before -> after::

        quantize(multiply(dequantize(a), dequantize(b)), s, z)  ->  vitq.multiply(a, b, ...)

    a and b of any scales and zero points, either of them perhaps constant, broadcastable to each
    other; positive numbers between are changes of scale. Error: one rounding and 2**-31 relative.
    Refuses a factor without a quantizer, codes over 16 bits, and scales for each channel.
    """

    requires = (Property.PATCHES_LOWERED, Property.LAYERS_LOWERED)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        product = None if out is None else ctx.call(out.data, "relax.multiply")
        if out is None or product is None:
            return None
        a, b = (_scaled_codes(arg, ctx) for arg in product.args)
        if a is None or b is None:
            raise DeclineError("a factor is not quantized")
        if not (a.is_per_tensor and b.is_per_tensor and out.is_per_tensor):
            raise DeclineError("a scale for each channel")
        if not (dialect.is_words(a.codes) and dialect.is_words(b.codes)):
            raise DeclineError("a factor has codes of more than 16 bits: it needs a quantizer")
        params = multiply_params(
            float(a.scale), int(a.zero_point), float(b.scale), int(b.zero_point), out.qparams
        )
        return dialect.multiply(a.codes, b.codes, params, out.dtype)


def _scaled_codes(expr: Expr, ctx: Context) -> Codes | None:
    """Return the codes behind a tensor, with what positive numbers made of their scale."""
    root, layout, factors = scaled_chain(expr, ctx.definition)
    codes = None if layout else ctx.codes(root)
    if codes is None:
        return None
    scale = codes.scale
    for factor in factors:
        scale = factor.apply(scale)
    return Codes(codes.codes, scale, codes.zero_point, codes.axis)
