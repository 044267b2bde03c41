"""DistributeQuantize: a concat is quantized part by part."""

from tvm import relax

from vitq.relay_passes.expressions import Expr
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import quantize_call
from vitq.relay_passes.rewriting import BindingPass


class DistributeQuantize(BindingPass):
    """Moves a quantizer above a concat, so that each part fuses it.

    Before -> after::

        quantize(concat(a, b), s, z)  ->  concat(quantize(a, s, z), quantize(b, s, z))

    Exact: quantize is elementwise. Refuses a per-channel quantizer.
    """

    requires = (Property.CLIPS_FOLDED,)
    ensures = (Property.CONCATS_DISTRIBUTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        quantizer = ctx.quantizer(value)
        concat = None if quantizer is None else ctx.call(quantizer.data, "relax.concat")
        if quantizer is None or concat is None:
            return None
        if not quantizer.is_per_tensor:
            raise DeclineError("the concat has a per-channel quantizer")
        parts = [
            ctx.emit(quantize_call(part, quantizer.qparams, quantizer.dtype), "codes")
            for part in ctx.definition(concat.args[0]).fields
        ]
        return relax.Call(concat.op, [relax.Tuple(parts)], concat.attrs, concat.ty_args)
