"""LowerDepthwise: a depthwise convolution becomes one integer operator."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.convolution import Geometry, tap_rows
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, ints, shape_of
from vitq.relay_passes.gemm import build_gemm, input_codes, split_product, weight_codes
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass

CHANNEL_AXIS = 1


class LowerDepthwise(BindingPass):
    """Lowers quantize(conv2d) with one group for each channel to ``vitq.depthwise``.

    Before::

        quantize(conv2d(dequantize(x), dequantize(W), groups=C) + bias, s, z)     # x: (B, C, H, W)

    After::

        rows = reshape(permute_dims(x, (0, 2, 3, 1)), (B, H * W, C))
        t = vitq.depthwise(rows, taps, W, bias, multiplier, shift, z, (z_x, qmin, qmax))
        permute_dims(reshape(t, (B, H', W', C)), (0, 3, 1, 2))

    The layout operators cancel against those around (`SimplifyLayout`). Integers as in
    `LowerLinear`, but for the input's zero point, which is subtracted from each code: a padded tap
    adds nothing. Refuses several kernels for a channel, other layouts, and inputs or weights that
    are not 8 bits. Leaves convolutions of one group.
    """

    requires = (Property.QUANTIZERS_HOISTED, Property.QDQ_CANONICAL)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        product = None if out is None else split_product(out.data, ctx, "relax.nn.conv2d")
        if out is None or product is None or int(product.call.attrs.groups) == 1:
            return None
        conv = product.call
        batch, channels, height, width = shape_of(conv.args[0])
        place = geometry(conv)
        weight = weight_codes(ctx.codes(conv.args[1]), "convolution's weight")
        x = input_codes(ctx.codes(conv.args[0]))
        if weight.axis not in (None, 0):
            raise DeclineError("the weight's scales do not lie along the output channels")
        if out.axis not in (None, CHANNEL_AXIS):
            raise DeclineError(f"the output's quantizer lies along axis {out.axis}")
        assert weight.array is not None
        flat = weight.array.reshape(channels, -1)
        plain = replace(x, zero_point=np.zeros_like(x.zero_point))
        layer = build_gemm(plain, flat, weight.scale, product, CHANNEL_AXIS, out, ctx)
        last = ctx.emit(relax.op.permute_dims(x.codes, [0, 2, 3, 1]), "pixels")
        rows = ctx.emit(relax.op.reshape(last, (batch, height * width, channels)), "rows")
        taps = tap_rows((height, width), place)
        found = dialect.depthwise(rows, taps, layer, int(x.zero_point), out.dtype)
        windows = place.windows((height, width))
        grid = relax.op.reshape(ctx.emit(found, "windows"), (batch, *windows, channels))
        return relax.op.permute_dims(ctx.emit(grid, "grid"), [0, 3, 1, 2])


def geometry(conv: Any) -> Geometry:
    """Read a depthwise convolution's taps, or refuse it."""
    attrs, (out, own, *kernel) = conv.attrs, shape_of(conv.args[1])
    channels = shape_of(conv.args[0])[1]
    if str(attrs.data_layout) != "NCHW" or str(attrs.kernel_layout) != "OIHW":
        raise DeclineError(f"layout {attrs.data_layout} / {attrs.kernel_layout}")
    if own != 1 or out != channels or int(attrs.groups) != channels:
        raise DeclineError(f"the convolution has {attrs.groups} groups for {channels} channels")
    top, left, bottom, right = ints(attrs.padding)
    strides, dilation = ints(attrs.strides), ints(attrs.dilation)
    assert prod(kernel) and len(strides) == len(dilation) == 2
    return Geometry(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (top, left),
        (bottom, right),
        (dilation[0], dilation[1]),
    )
