"""LowerMultiply: products of two tensors become integer products."""

from vitq.numerics.matmul import product_scale
from vitq.numerics.multiply import multiply_add_params, multiply_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, Quantizer
from vitq.relay_passes.reading.scaling import scaled_chain
from vitq.relay_passes.rewriting import BindingPass


class LowerMultiply(BindingPass):
    """Lowers a quantized product to ``vitq.multiply``, a sum of two to ``vitq.multiply_add``.

    Before -> after::

        quantize(multiply(dq(a), dq(b)), s, z)  ->  vitq.multiply(a, b, ...)
        quantize(add(multiply(dq(a), dq(b)), multiply(dq(c), dq(d))), s, z)
        ->  vitq.multiply_add(a, b, c, d, ...)

    of any scales and zero points, any factor perhaps constant, all broadcastable to each other;
    positive numbers between are changes of scale. Error: one rounding and 2**-31 relative. Refuses
    a factor without a quantizer, codes over 16 bits, scales for each channel, and two products of
    different steps.
    """

    requires = (Property.PATCHES_LOWERED, Property.LAYERS_LOWERED)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        total = ctx.call(out.data, "relax.add")
        terms = [out.data] if total is None else list(total.args)
        found = [ctx.call(term, "relax.multiply") for term in terms]
        products = [product for product in found if product is not None]
        if len(products) < len(found):
            return None
        if not out.is_per_tensor:
            raise DeclineError("a scale for each channel")
        factors = [_factor(arg, ctx) for product in products for arg in product.args]
        if len(factors) == 2:
            a, b = factors
            params = multiply_params(*_meaning(a), *_meaning(b), out.qparams)
            return dialect.multiply(a.codes, b.codes, params, out.dtype)
        return _sum_of_products(factors, out)


def _sum_of_products(factors: list[Codes], out: Quantizer) -> Expr:
    """Return ``a * b + c * d`` of codes."""
    a, b, c, d = ((float(factor.scale)) for factor in factors)
    step = float(product_scale(a, b))
    if float(product_scale(c, d)) != step:
        raise DeclineError("the sum of two products of different steps: quantize each of them")
    za, zb, zc, zd = (int(factor.zero_point) for factor in factors)
    params = multiply_add_params(step, (za, zb, zc, zd), out.qparams)
    return dialect.multiply_add([factor.codes for factor in factors], params, out.dtype)


def _meaning(codes: Codes) -> tuple[float, int]:
    """Return scale and zero point."""
    return float(codes.scale), int(codes.zero_point)


def _factor(expr: Expr, ctx: Context) -> Codes:
    """Return a factor's codes.

    Raises:
        DeclineError: where it has none that can be multiplied.
    """
    codes = _scaled_codes(expr, ctx)
    if codes is None:
        raise DeclineError("a factor is not quantized")
    if not codes.is_per_tensor:
        raise DeclineError("a scale for each channel")
    if not dialect.is_words(codes.codes):
        raise DeclineError("a factor has codes of more than 16 bits: it needs a quantizer")
    return codes


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
