"""Linear layers and the patch embedding: exact int32 sums, one rounding for each result.

    acc[n] = sum_k x[k] weight[n, k] + bias[n]                                       int32
    y[n] = clamp(rescale(acc[n]) + zero_point[n], qmin, qmax)
    multiplier[n] / 2**shift[n] ~ (x_scale * weight_scale[n]) / output scale[n]      float64

Zero points cost nothing: weights have none, and the input's moves into the bias,

    bias'[n] = round_half_even(bias[n] / (x_scale * weight_scale[n])) - x_zero_point * sum_k weight

A layer has two halves, because attention's accumulators travel through layout operators before they
are requantized, each part with parameters of its own: `linear_sum` makes what is summed and what
one step of a sum means, `linear_params` adds what requantizes it. The float64 factor is computed
by `numerics.matmul.product_scale` and `numerics.requantize.requantize_factor` and nowhere else.

Ranges: `relay_passes.check_accumulators` bounds all partial sums by `numerics.matmul.weight_bounds`
for the weights at hand, or refuses; within int32 the rest is as in `numerics.requantize`. A patch
embedding is a linear layer over `patch_rows`, channels first, then rows, then columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic, rescale, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.matmul import int_matmul, product_scale
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import requantize_factor


class LinearSum(NamedTuple):
    """What a layer with constant weights sums.

    Attributes:
        weight: (N, ...) int8 codes, output channels first.
        bias: (N,) int64, the input's zero point folded in.
        scale: (N,) float64, real value of one step of each channel's accumulator.
    """

    weight: IntArray
    bias: IntArray
    scale: FloatArray


class LinearParams(NamedTuple):
    """The integers of one linear layer or patch embedding.

    Attributes:
        weight: (N, K), or (N, C, P, P) for patches, int8 codes.
        bias: (N,) within int32, the input's zero point folded in.
        dyadic: (N,) accumulator scale / output scale.
        zero_point: (N,) of the output.
        qmin: of the output.
        qmax: of the output.
    """

    weight: IntArray
    bias: IntArray
    dyadic: Dyadic
    zero_point: IntArray
    qmin: int
    qmax: int

    @property
    def channels(self) -> int:
        """N, how many outputs."""
        return int(self.weight.shape[0])

    def operands(self) -> tuple[IntArray, ...]:
        """Weight int8; bias, multiplier, shift, zero point int32; bounds int64, as kernels read."""
        return (
            self.weight.astype(np.int8),
            self.bias.astype(np.int32),
            self.dyadic.multiplier.astype(np.int32),
            self.dyadic.shift.astype(np.int32),
            self.zero_point.astype(np.int32),
            np.array([self.qmin, self.qmax], np.int64),
        )

    @classmethod
    def from_operands(cls, arrays: Sequence[IntArray]) -> "LinearParams":
        """Return the inverse of `operands`."""
        weight, bias, multiplier, shift, zero_point, (qmin, qmax) = arrays
        return cls(weight, bias, Dyadic(multiplier, shift), zero_point, int(qmin), int(qmax))


GEMM_OPERANDS = 7
"""How many operands a layer has: its input and `LinearParams.operands`.

What a fused operator adds follows them.
"""


def round_bias(bias: FloatArray, scale: FloatArray) -> IntArray:
    """Round a real bias to steps of the accumulator.

    Args:
        bias: broadcastable to (N,).
        scale: (N,) or (), of the accumulator.

    Returns:
        int64, ``round_half_even(bias / scale)``.

    Raises:
        RangeError: a bias is not finite.
    """
    if not np.all(np.isfinite(bias)):
        raise RangeError("a bias is not finite (NaN or Inf): check the weights")
    return np.asarray(np.rint(bias / scale)).astype(np.int64)


def linear_sum(
    weight: IntArray,
    weight_scale: FloatArray | float,
    bias: IntArray,
    x_scale: float,
    x_zero_point: int,
) -> LinearSum:
    """Fold an input's zero point into the bias, and two scales into one.

    Args:
        weight: (N, ...) codes without a zero point.
        weight_scale: () or (N,), > 0.
        bias: () or (N,) codes at the accumulator's scale.
        x_scale: real value of one input step, > 0.
        x_zero_point: of the input.

    Returns:
        What is summed.

    Raises:
        RangeError: if a folded bias leaves int32.
    """
    channels = weight.shape[0]
    rows = weight.reshape(channels, -1).sum(axis=1, dtype=np.int64)
    folded = np.broadcast_to(bias, (channels,)).astype(np.int64) - x_zero_point * rows
    largest = int(np.abs(folded).max(initial=0))
    if largest > ACC_LIMIT:
        raise RangeError(f"a bias of {largest} leaves int32 at input scale {float(x_scale):.3g}")
    scale = np.broadcast_to(product_scale(x_scale, weight_scale), (channels,))
    return LinearSum(weight, folded, scale)


def linear_params(layer: LinearSum, out: QuantParams) -> LinearParams:
    """Integers of a layer whose sums are requantized at once.

    Args:
        layer: from `linear_sum`; factors behind the layer multiply its scale.
        out: the output's parameters, per tensor or per output channel.

    Returns:
        The integers.

    Raises:
        RangeError: if a factor is not finite or 2**30 or more.
    """
    dyadic = to_dyadic(requantize_factor(layer.scale, out))
    zero_point = np.broadcast_to(out.zero_point, layer.bias.shape)
    return LinearParams(layer.weight, layer.bias, dyadic, zero_point, out.qmin, out.qmax)


def accumulate(x: IntArray, layer: LinearSum | LinearParams) -> IntArray:
    """``x @ weight.T + bias``, exact.

    Args:
        x: (..., K) codes, zero point included.
        layer: weights of K codes for each output, and biases.

    Returns:
        (..., N) int64; int32 where `relay_passes.check_accumulators` has proven it.
    """
    matrix = layer.weight.reshape(layer.weight.shape[0], -1).T
    acc = int_matmul(x, matrix)
    acc += layer.bias
    return acc


def int_linear(x: IntArray, p: LinearParams) -> IntArray:
    """One linear layer (module docstring's formula).

    Args:
        x: (..., K) 8-bit codes.
        p: the integers from `linear_params`.

    Returns:
        (..., N) int64 in [qmin, qmax].
    """
    return np.clip(rescale(accumulate(x, p), p.dyadic) + p.zero_point, p.qmin, p.qmax)


def patch_rows(pixels: IntArray, patch: int) -> IntArray:
    """Cut pictures into square patches without overlap.

    Args:
        pixels: (B, C, H, W), `patch` divides H and W.
        patch: edge of a patch.

    Returns:
        (B, L, C * patch * patch) with L = H / patch * W / patch, patches in reading order.
    """
    batch, channels, height, width = pixels.shape
    down, across = height // patch, width // patch
    tiles = pixels.reshape(batch, channels, down, patch, across, patch)
    rows = tiles.transpose(0, 2, 4, 1, 3, 5)
    return rows.reshape(batch, down * across, channels * patch * patch)


def int_patch_embed(pixels: IntArray, p: LinearParams) -> IntArray:
    """Run a convolution whose stride is its kernel: one linear layer over patches.

    Args:
        pixels: (B, C, H, W) 8-bit codes.
        p: the integers from `linear_params`, weights (N, C, P, P).

    Returns:
        (B, L, N) int64 in [qmin, qmax].
    """
    return int_linear(patch_rows(pixels, p.weight.shape[-1]), p)
