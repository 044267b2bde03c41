"""Mean over tokens: an exact sum, then one rounding.

    y = clamp(rescale(sum_L(x - x_zero_point)) + zero_point, qmin, qmax)
    multiplier / 2**shift ~ scale / (L * output scale)                               float64

Dividing by L costs nothing: it is part of the factor. Ranges: ``L * max|x - x_zero_point| < 2**31``
(`relay_passes.check_accumulators` proves it), then as in `numerics.requantize`. Error: half a step
for the rounding, ties up, and a relative 2**-31 of the factor.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import requantize, scalar_dyadic, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import QuantParams


class MeanParams(NamedTuple):
    """The integers of one mean, in the order in which a kernel reads them (int64 each)."""

    multiplier: int
    shift: int
    x_zero_point: int
    zero_point: int
    qmin: int
    qmax: int


def mean_params(scale: float, x_zero_point: int, length: int, out: QuantParams) -> MeanParams:
    """Integers for the mean over one axis.

    Args:
        scale: real value of one input step, > 0.
        x_zero_point: of the input.
        length: how many codes are averaged, at least 1.
        out: the output's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if nothing is averaged, or the factor is not finite or 2**30 or more.
    """
    if length < 1:
        raise RangeError(f"a mean over {length} values: at least 1 is needed")
    dyadic = to_dyadic(scale / (length * float(out.scale)))
    return MeanParams(
        int(dyadic.multiplier),
        int(dyadic.shift),
        x_zero_point,
        int(out.zero_point),
        out.qmin,
        out.qmax,
    )


def int_mean(x: IntArray, p: MeanParams, axis: int) -> IntArray:
    """Average integer codes over one axis (module docstring's formula).

    Args:
        x: any shape, 16-bit codes at most, with as many along `axis` as `mean_params` was told.
        p: the integers from `mean_params`.
        axis: of the tokens; it is left out of the result.

    Returns:
        int64 in [qmin, qmax].
    """
    total = np.subtract(x, p.x_zero_point, dtype=np.int64).sum(axis=axis)
    dyadic = scalar_dyadic(p.multiplier, p.shift)
    return requantize(total, dyadic, p.zero_point, p.qmin, p.qmax)
