"""LowerNormalizedMatmul: attention's second product divides by the row sum once."""

from vitq.numerics.shiftmax import normalized_matmul_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, ints, normalize_axis, shape_of
from vitq.relay_passes.gemm import input_codes
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes
from vitq.relay_passes.rewriting import BindingPass


class LowerNormalizedMatmul(BindingPass):
    """Lowers quantize(codes @ V / sum(codes)) to ``vitq.normalized_matmul``.

    Before (`LowerShiftmax` has passed)::

        c = vitq.shiftmax_codes(...);  w = dequantize(c, 1/255)
        quantize(divide(matmul(w, dequantize(v, s_v, z_v)), sum(w, -1, keepdims)), s_out, z_out)

    After::

        vitq.normalized_matmul(c, v, (z_v, *normalized_matmul_params(s_v, out)))

    The codes' own scale cancels. Refuses codes that no Shiftmax made (only its rows are known to
    sum to at least 255), another divisor, values that are not 8-bit per tensor, and a per-channel
    output.
    """

    requires = (Property.SOFTMAX_LOWERED, Property.CODE_TABLES_FOLDED)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        divide = None if out is None else ctx.call(out.data, "relax.divide")
        if out is None or divide is None:
            return None
        product = ctx.call(divide.args[0], "relax.matmul")
        total = ctx.call(divide.args[1], "relax.sum")
        if product is None or total is None:
            raise DeclineError("a quotient that is not (codes @ v) / sum(codes)")
        weights = input_codes(ctx.codes(product.args[0]), "left operand")
        values = input_codes(ctx.codes(product.args[1]), "right operand")
        if ctx.call(weights.codes, names.SHIFTMAX_CODES) is None:
            raise DeclineError("the weights do not come from a Shiftmax")
        if int(weights.zero_point) != 0:
            raise DeclineError("the weights' zero point is not 0")
        _check_row_sum(total, weights, ctx)
        if not out.is_per_tensor:
            raise DeclineError("the output has a scale for each channel")
        norm = normalized_matmul_params(float(values.scale), out.qparams)
        zero_point = int(values.zero_point)
        return dialect.normalized_matmul(weights.codes, values.codes, zero_point, norm, out.dtype)


def _check_row_sum(total: Expr, weights: Codes, ctx: Context) -> None:
    """Check that the divisor is the sum of the same weights over the last axis."""
    summed = ctx.codes(total.args[0])
    rank = len(shape_of(total.args[0]))
    axes = [] if total.attrs.axis is None else ints(total.attrs.axis)
    if [normalize_axis(axis, rank) for axis in axes] != [rank - 1] or not total.attrs.keepdims:
        raise DeclineError("the divisor is not summed over the last axis")
    same = (
        summed is not None
        and summed.codes == weights.codes
        and summed.scale == weights.scale
        and summed.zero_point == weights.zero_point
    )
    if not same:
        raise DeclineError("the divisor sums other values than the weights")
