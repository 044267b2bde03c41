"""LowerPatchEmbed: the patch projection becomes one integer operator."""

from tvm import relax

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of, ints, shape_of
from vitq.relay_passes.gemm import build_gemm, input_codes, split_product, weight_codes
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, quantize_call
from vitq.relay_passes.rewriting import BindingPass

SIGNED_OFFSET = 128
CHANNEL_AXIS = 1


class LowerPatchEmbed(BindingPass):
    """Lowers quantize(conv2d) whose stride is its kernel to ``vitq.patch_embed``.

    Before::

        quantize(conv2d(dequantize(pixels), dequantize(W)) + bias, s, z)          # (B, N, H/P, W/P)

    After::

        t = vitq.patch_embed(pixels, W, bias', multiplier, shift, z, (qmin, qmax))  # (B, L, N)
        permute_dims(reshape(t, (B, H/P, W/P, N)), (0, 3, 1, 2))

    The two layout operators cancel against those that follow (`SimplifyLayout`). Integers as in
    `LowerLinear`. Signed pixel codes move up by 128 where a quantizer makes them, for the operator
    reads uint8. Refuses overlapping or padded convolutions, groups, other layouts, an image that
    the patch does not divide, and signed pixels that no quantizer makes.
    """

    requires = (Property.QUANTIZERS_HOISTED, Property.QDQ_CANONICAL)
    ensures = (Property.PATCHES_LOWERED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        product = split_product(out.data, ctx, "relax.nn.conv2d")
        if product is None:
            return None
        conv = product.call
        weight = weight_codes(ctx.codes(conv.args[1]), "convolution's weight")
        pixels = input_codes(ctx.codes(conv.args[0]))
        _check_geometry(conv)
        if dtype_of(pixels.codes) != "uint8":
            pixels = _unsigned(pixels, ctx)
        if weight.axis not in (None, 0):
            raise DeclineError("the weight's scales do not lie along the output channels")
        if out.axis not in (None, CHANNEL_AXIS):
            raise DeclineError(f"the output's quantizer lies along axis {out.axis}")
        array = weight.array
        assert array is not None
        gemm = build_gemm(pixels, array, weight.scale, product, CHANNEL_AXIS, out, ctx)
        tokens = ctx.emit(dialect.patch_embed(pixels.codes, gemm, out.dtype), "tokens")
        batch, channels, rows, cols = shape_of(conv)
        grid = ctx.emit(relax.op.reshape(tokens, (batch, rows, cols, channels)), "grid")
        return relax.op.permute_dims(grid, [0, 3, 1, 2])


def _unsigned(pixels: Codes, ctx: Context) -> Codes:
    """Return the same values in uint8 codes: codes, zero point and bounds move together."""
    quantizer = ctx.quantizer(pixels.codes)
    if quantizer is None:
        raise DeclineError("the pixels are int8 and no quantizer makes them: uint8 is needed")
    moved = quantizer.qparams.moved(SIGNED_OFFSET)
    codes = ctx.emit(quantize_call(quantizer.data, moved, "uint8"), "pixels")
    return Codes(codes, pixels.scale, pixels.zero_point + SIGNED_OFFSET, None)


def _check_geometry(conv: Expr) -> None:
    """Refuse what is not a cut into square patches."""
    attrs = conv.attrs
    patch = shape_of(conv.args[1])[2:]
    height, width = shape_of(conv.args[0])[2:]
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise DeclineError(f"layout {attrs.data_layout} / {attrs.kernel_layout}")
    if patch[0] != patch[1] or ints(attrs.strides) != patch:
        raise DeclineError(f"kernel {patch} and stride {ints(attrs.strides)} are no square patches")
    if any(ints(attrs.padding)) or any(d != 1 for d in ints(attrs.dilation)):
        raise DeclineError("the convolution is padded or dilated")
    if int(attrs.groups) != 1:
        raise DeclineError(f"the convolution has {attrs.groups} groups")
    if height % patch[0] or width % patch[1]:
        raise DeclineError(f"patches of {patch[0]} do not divide an image of {height} x {width}")
