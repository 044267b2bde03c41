"""LowerAdd: a residual addition becomes an integer addition."""

from tvm import relax

from vitq.numerics.add import add_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerAdd(BindingPass):
    """Lowers quantize(add) to ``vitq.add``.

    Before -> after::

        quantize(add(dequantize(a), dequantize(b)), s, z)  ->  vitq.add(a, b, AddParams)

    a and b of any scales and zero points, one of them possibly constant or broadcast (the
    position embedding). Kernels repeat whole trailing axes; what broadcasts along inner ones (SAM's
    positions of rows and columns) is repeated before. Error: one rounding, multipliers of 15 bits.
    Refuses an addend without a quantizer, codes over 16 bits, per-channel scales, and addends that
    broadcast against each other.
    """

    requires = (Property.PATCHES_LOWERED, Property.LAYERS_LOWERED)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        total = None if out is None else ctx.call(out.data, "relax.add")
        if out is None or total is None:
            return None
        a, b = (ctx.codes(arg) for arg in total.args)
        if a is None or b is None:
            if a is None and ctx.call(total.args[0], "relax.matmul", "relax.nn.conv2d") is not None:
                return None  # a bias: LowerLinear and LowerPatchEmbed say why they decline
            raise DeclineError("an addend is not quantized")
        shape = shape_of(total)
        if shape_of(a.codes) != shape:
            a, b = b, a
        if shape_of(a.codes) != shape:
            raise DeclineError("both addends are broadcast")
        if not (a.is_per_tensor and b.is_per_tensor and out.is_per_tensor):
            raise DeclineError("a scale for each channel")
        if not (dialect.is_words(a.codes) and dialect.is_words(b.codes)):
            raise DeclineError("an addend has codes of more than 16 bits: it needs a quantizer")
        params = add_params(
            float(a.scale), int(a.zero_point), float(b.scale), int(b.zero_point), out.qparams
        )
        other = b.codes
        if not _is_trailing(shape_of(other), shape):
            other = ctx.emit(relax.op.broadcast_to(other, shape), "repeated")
        return dialect.add(a.codes, other, params, out.dtype)


def _is_trailing(shape: tuple[int, ...], total: tuple[int, ...]) -> bool:
    """Whether a tensor of a shape is repeated over leading axes only."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape == total[len(total) - len(shape) :]
