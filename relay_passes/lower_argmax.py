"""LowerArgmax: the class of the largest score becomes that of the largest code."""

from tvm import relax

from vitq.numerics.argmax import MOST_CLASSES
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of, normalize_axis, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerArgmax(BindingPass):
    """Lowers the argmax of quantized scores to ``vitq.argmax``.

    Before -> after::

        quantize(astype(argmax(dequantize(x, s_x, z_x), axis), float32), 1, 0, u8)
        -> vitq.argmax(x)                               # x: (B, C, M), the other axes as one

    Exact, as one scale > 0 orders codes as it orders values. Refuses a scale for each channel
    (codes of different classes could not be compared), codes over 16 bits, more than 256 classes,
    an argmax over all axes or over the pictures, and another scale behind it.
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        number = None if out is None else ctx.call(out.data, "relax.astype")
        found = None if number is None else ctx.call(number.args[0], "relax.argmax")
        if out is None or found is None:
            return None
        shape = shape_of(found.args[0])
        given = found.attrs.axis
        axis = 0 if given is None else normalize_axis(int(given), len(shape))
        if axis == 0:
            raise DeclineError("an argmax over all axes, or over the pictures")
        if shape[axis] > MOST_CLASSES:
            raise DeclineError(f"an argmax over {shape[axis]} classes: at most {MOST_CLASSES}")
        is_class = out.is_per_tensor and float(out.qparams.scale) == 1 and out.dtype == "uint8"
        if not is_class or int(out.qparams.zero_point) != 0 or out.qparams.qmax < shape[axis] - 1:
            raise DeclineError("behind an argmax its quantizer is not uint8 of scale 1")
        codes = ctx.codes(found.args[0])
        if codes is None:
            raise DeclineError("the scores are not quantized")
        if not codes.is_per_tensor:
            raise DeclineError("a scale for each channel")
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the scores have {dtype_of(codes.codes)} codes: 16 bits at most")
        return _argmax(codes.codes, axis, shape_of(found), ctx)


def _argmax(codes: Expr, axis: int, wanted: tuple[int, ...], ctx: Context) -> Expr:
    """Bring the classes behind the pictures, and all other axes behind them into one."""
    shape = shape_of(codes)
    if axis != 1:
        rest = [place for place in range(1, len(shape)) if place != axis]
        codes = ctx.emit(relax.op.permute_dims(codes, [0, axis, *rest]), "classes")
    batch, classes = shape[0], shape[axis]
    size = 1
    for place, side in enumerate(shape):
        size *= 1 if place in (0, axis) else side
    if len(shape) != 3 or axis != 1:
        codes = ctx.emit(relax.op.reshape(codes, (batch, classes, size)), "scores")
    found = dialect.argmax(codes)
    if (batch, size) == wanted:
        return found
    return relax.op.reshape(ctx.emit(found, "class"), wanted)
