"""Convolutions of integer codes, (B, H, W, C): any kernel, stride, padding and dilation.

    acc[y, x, o] = sum_ijc (code[y s - p + i d, x s - p + j d, c] - x_zero_point) * w[o, i, j, c]
    out = clamp(rescale(acc + bias[o]) + zero_point[o], qmin, qmax)

Outside of the picture are real zeros, whose code is the zero point: a tap there adds nothing.

A convolution of one group is a linear layer (`numerics.linear`) over the windows' rows,

    row[y, x] = (code[y s - p + i d, x s - p + j d, :] for all i, j)        x_zero_point outside

where the zero point is folded into the bias, which is exact *because* the padded taps are there
and hold the zero point's code. Kernel 1 and stride 1 are the pixels' own rows. A row of C codes
moves whole, so that the windows are a table of rows (`numerics.rows`). Several groups are the same
layer with zeros between the groups' weights.

A depthwise convolution has one group for each channel, and no sum over channels:

    acc[y, x, c] = sum_ij (code[y s - p + i d, x s - p + j d, c] - x_zero_point) * w[c, i, j]

It is an operator of its own (`int_depthwise`): the zero point is subtracted from each code, not
folded, so that taps outside are skipped.

Ranges, depthwise: a difference is within +-255 and a weight within +-128, so that a product is
within +-32640 (16 bits), and |acc + bias| <= max|code - x_zero_point| * sum_ij |w[c, i, j]| +
|bias[c]| < 2**31, at any border, for any order of the taps and any part of the sum
(`relay_passes.check_accumulators` proves it from the weights at hand).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import rescale
from vitq.numerics.errors import RangeError
from vitq.numerics.linear import LinearParams


class Geometry(NamedTuple):
    """Where a depthwise convolution's taps lie; vertical before horizontal.

    Attributes:
        stride_y: between two windows.
        stride_x: likewise.
        top: rows of zeros above the picture.
        left: columns of zeros.
        bottom: rows of zeros below.
        right: columns of zeros.
        dilation_y: between two taps.
        dilation_x: likewise.
    """

    stride_y: int
    stride_x: int
    top: int
    left: int
    bottom: int
    right: int
    dilation_y: int
    dilation_x: int

    def size(self, height: int, width: int, kernel: tuple[int, int]) -> tuple[int, int]:
        """Return how many windows there are.

        Raises:
            RangeError: if the kernel reaches beyond the padded picture.
        """
        down = height + self.top + self.bottom - self.dilation_y * (kernel[0] - 1) - 1
        across = width + self.left + self.right - self.dilation_x * (kernel[1] - 1) - 1
        if down < 0 or across < 0:
            raise RangeError(
                f"a kernel of {kernel[0]} x {kernel[1]} reaches beyond a map of {height} x {width}"
            )
        return down // self.stride_y + 1, across // self.stride_x + 1


def int_depthwise(x: IntArray, p: LinearParams, x_zero_point: int, place: Geometry) -> IntArray:
    """Convolve each channel with a kernel of its own (module docstring's formula).

    Args:
        x: (B, H, W, C) 8-bit codes.
        p: weights (C, i, j) and biases without the zero point's part, from
            `numerics.linear.linear_sum` with zero point 0.
        x_zero_point: of the input.
        place: the taps.

    Returns:
        (B, H', W', C) int64 in [qmin, qmax].
    """
    acc = depthwise_sum(x, p.weight, x_zero_point, place) + p.bias
    return np.clip(rescale(acc, p.dyadic) + p.zero_point, p.qmin, p.qmax)


def depthwise_sum(x: IntArray, weight: IntArray, x_zero_point: int, place: Geometry) -> IntArray:
    """Sum the taps of each channel, without biases.

    Args:
        x: (B, H, W, C) codes.
        weight: (C, i, j) codes.
        x_zero_point: of the input.
        place: the taps.

    Returns:
        (B, H', W', C) int64.
    """
    batch, height, width, channels = x.shape
    down, across = place.size(height, width, weight.shape[1:])
    sides = ((0, 0), (place.top, place.bottom), (place.left, place.right), (0, 0))
    centred = np.pad(np.subtract(x, x_zero_point, dtype=np.int64), sides)
    acc = np.zeros((batch, down, across, channels), np.int64)
    for i in range(weight.shape[1]):
        for j in range(weight.shape[2]):
            y, left = i * place.dilation_y, j * place.dilation_x
            rows = slice(y, y + (down - 1) * place.stride_y + 1, place.stride_y)
            columns = slice(left, left + (across - 1) * place.stride_x + 1, place.stride_x)
            acc += centred[:, rows, columns] * weight[:, i, j].astype(np.int64)
    return acc
