"""The integers of a layer with constant weights, shared by `LowerLinear` and `LowerPatchEmbed`."""

from dataclasses import dataclass

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.linear import LinearParams, linear_params, linear_sum, round_bias
from vitq.numerics.matmul import product_scale
from vitq.relay_passes.expressions import Expr, dtype_of, op_name, shape_of
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, Quantizer
from vitq.relay_passes.reading.scaling import Factor, channel_factor, constant_factor

SAME_SCALE = 2.0**-20
"""A bias written for scale s_x * s_w carries that product rounded to float32: within 2**-23."""


@dataclass(frozen=True)
class Product:
    """A product with constant weights, and what stands between it and its quantizer.

    Attributes:
        call: the matmul or convolution.
        biases: constants added to it.
        scalings: then, in order, multiplications and divisions by constants.
    """

    call: Expr
    biases: list[Expr]
    scalings: list[tuple[Expr, Factor]]

    def factors(self, axis: int) -> list[Factor]:
        """Check that the scalings are one positive number or one for each index of `axis`."""
        return [channel_factor(call, found, axis) for call, found in self.scalings]


def weight_codes(codes: Codes | None, what: str) -> Codes:
    """Check that a weight is a symmetric int8 constant."""
    if codes is None or codes.array is None:
        raise DeclineError(f"the {what} is not a quantized constant")
    if codes.array.dtype != np.int8:
        raise DeclineError(f"the {what} has {codes.array.dtype} codes: int8 is needed")
    if np.any(codes.zero_point):
        raise DeclineError(f"the {what} has a zero point that is not 0")
    return codes


def input_codes(codes: Codes | None, what: str = "input") -> Codes:
    """Check that an activation is quantized to 8 bits, per tensor."""
    if codes is None:
        raise DeclineError(f"the {what} is not quantized")
    if not codes.is_per_tensor:
        raise DeclineError(f"the {what} has a scale for each channel: one is needed")
    if dtype_of(codes.codes) not in ("int8", "uint8"):
        raise DeclineError(f"the {what} has {dtype_of(codes.codes)} codes: 8 bits are needed")
    return codes


def split_product(expr: Expr, ctx: Context, *names: str) -> Product | None:
    """Return the product behind constant addends and factors.

    Args:
        expr: ``product``, ``product + b1 + b2``, ``(product + b) * c``.
        ctx: the function.
        names: the product's operator.

    Returns:
        Its parts; None where there is no product.
    """
    scalings: list[tuple[Expr, Factor]] = []
    biases: list[Expr] = []
    found = ctx.definition(expr)
    while (factor := constant_factor(found, ctx.definition)) is not None:
        scalings.append((found, factor))
        found = ctx.definition(found.args[0])
    while op_name(found) == "relax.add" and ctx.real(found.args[1]) is not None:
        biases.append(found.args[1])
        found = ctx.definition(found.args[0])
    return Product(found, biases, scalings[::-1]) if op_name(found) in names else None


def bias_codes(bias: Expr, acc_scale: FloatArray, axis_size: int, ctx: Context) -> IntArray:
    """Read a bias as integers of the accumulator.

    int32 codes at the accumulator's scale are taken as they are; any other constant becomes
    ``round_half_even(b / acc_scale)``.
    """
    if np.prod(shape_of(bias)) not in (1, axis_size):
        raise DeclineError(f"a constant of shape {shape_of(bias)} is added, which is no bias")
    codes = ctx.codes(bias)
    if codes is not None and codes.array is not None and not np.any(codes.zero_point):
        if np.all(np.abs(codes.scale / acc_scale - 1) <= SAME_SCALE):
            return np.broadcast_to(codes.array.reshape(-1), (axis_size,)).astype(np.int64)
    real = ctx.real(bias)
    assert real is not None
    return round_bias(np.broadcast_to(real.reshape(-1), (axis_size,)), acc_scale)


def build_gemm(
    x: Codes,
    weight: IntArray,
    weight_scale: FloatArray,
    product: Product,
    axis: int,
    out: Quantizer,
    ctx: Context,
) -> LinearParams:
    """Find biases and factors, and let `numerics.linear` fold them into integers.

    Args:
        x: the input, per tensor.
        weight: (N, ...) int8.
        weight_scale: () or (N,) float64.
        product: where biases and factors come from.
        axis: of the output channels in the product.
        out: the quantizer behind it, per tensor or per output channel.
        ctx: the function.

    Returns:
        The operands of ``vitq.linear`` or ``vitq.patch_embed``.

    Raises:
        RangeError: if a bias or a factor leaves its integer type.
    """
    channels = weight.shape[0]
    acc_scale = np.broadcast_to(product_scale(x.scale, weight_scale), (channels,))
    bias = np.zeros(channels, np.int64)
    for addend in product.biases:
        bias = bias + bias_codes(addend, acc_scale, channels, ctx)
    layer = linear_sum(weight, weight_scale, bias, float(x.scale), int(x.zero_point))
    for scaling in product.factors(axis):
        layer = layer._replace(scale=scaling.apply(layer.scale))
    return linear_params(layer, out.qparams)
