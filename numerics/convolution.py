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

It is an operator of its own (`int_depthwise`), over rows of C codes and a table that names, for
each output position, the row of each tap; `MISSING` where it lies outside. The zero point is
subtracted from each code, not folded, so that taps outside are skipped. The table holds any address
pattern, and its shape alone says how large the result is.

Ranges, depthwise: a difference is within +-255 and a weight within +-128, so that a product is
within +-32640 (`PRODUCT_LIMIT`), and

    |acc + bias| <= max|code - x_zero_point| * sum_ij |w[c, i, j]| + |bias[c]| < 2**31

at any border, for any order of the taps and any part of the sum
(`relay_passes.check_accumulators` proves it from the weights at hand).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import rescale
from vitq.numerics.errors import RangeError
from vitq.numerics.linear import LinearParams
from vitq.numerics.rows import MISSING

PRODUCT_LIMIT = 2**15 - 1
"""Of one tap: 16-bit lanes hold it."""


class Geometry(NamedTuple):
    """Where a convolution's taps lie, (vertical, horizontal).

    Attributes:
        kernel: how many taps.
        stride: between two windows.
        before: zeros above and on the left.
        after: zeros below and on the right.
        dilation: between two taps.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def windows(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many windows a map has.

        Args:
            size: (H, W).

        Returns:
            (H', W').

        Raises:
            RangeError: if the kernel reaches beyond the padded map.
        """
        down, across = (self._along(axis, size[axis]) for axis in (0, 1))
        if min(down, across) < 1:
            raise RangeError(
                f"a kernel of {self.kernel[0]} x {self.kernel[1]} reaches beyond a map of "
                f"{size[0]} x {size[1]}"
            )
        return down, across

    def _along(self, axis: int, length: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        padded = length + self.before[axis] + self.after[axis]
        return (padded - reach) // self.stride[axis] + 1


def tap_rows(size: tuple[int, int], place: Geometry) -> IntArray:
    """Return which row of a map each tap reads.

    Args:
        size: (H, W) of the map, whose pixels are the rows 0 to H * W - 1.
        place: the taps.

    Returns:
        (H' * W', taps) int32, `MISSING` outside of the map.
    """
    counts = place.windows(size)
    at = []
    for axis in (0, 1):
        starts = np.arange(counts[axis]) * place.stride[axis] - place.before[axis]
        at.append(starts[:, None] + np.arange(place.kernel[axis]) * place.dilation[axis])
    y, x = at[0][:, None, :, None], at[1][None, :, None, :]
    inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    rows = np.where(inside, y * size[1] + x, MISSING)
    return rows.reshape(counts[0] * counts[1], -1).astype(np.int32)


def int_depthwise(x: IntArray, taps: IntArray, p: LinearParams, x_zero_point: int) -> IntArray:
    """Convolve each channel with a kernel of its own (module docstring's formula).

    Args:
        x: (B, R, C) 8-bit codes.
        taps: (M, K) rows of `x`, from `tap_rows`.
        p: weights (C, K) and biases without the zero point's part, from
            `numerics.linear.linear_sum` with zero point 0.
        x_zero_point: of the input.

    Returns:
        (B, M, C) int64 in [qmin, qmax].
    """
    acc = depthwise_sum(x, taps, p.weight, x_zero_point) + p.bias
    return np.clip(rescale(acc, p.dyadic) + p.zero_point, p.qmin, p.qmax)


def depthwise_sum(x: IntArray, taps: IntArray, weight: IntArray, x_zero_point: int) -> IntArray:
    """Sum the taps of each channel, without biases.

    Args:
        x: (B, R, C) codes.
        taps: (M, K) rows of `x`.
        weight: (C, K) codes.
        x_zero_point: of the input.

    Returns:
        (B, M, C) int64.
    """
    centred = np.subtract(x, x_zero_point, dtype=np.int64)
    acc = np.zeros((len(x), len(taps), x.shape[2]), np.int64)
    for k, rows in enumerate(taps.T):
        found = centred[:, np.maximum(rows, 0)] * (rows != MISSING)[:, None]
        acc += found * weight[:, k].astype(np.int64)
    return acc
