"""Requantization: codes or an accumulator of one scale become codes of another, one rounding.

    y = clamp(rescale(x - x_zero_point) + zero_point, qmin, qmax)
    rescale(a) = (a * multiplier + 2**(shift - 1)) >> shift,  multiplier / 2**shift ~ factor
    factor = scale / output scale                                                    float64

`requantize_factor` is the only place where a scale is divided by an output's scale on the way to a
dyadic number with 31-bit multipliers: the operators of `numerics.linear` and this one share it.

Ranges: ``|x - x_zero_point| < 2**31`` (`relay_passes.check_accumulators` proves it) makes the
product less than 2**62 and, with the rounding constant of at most 2**45, an int64. Error: half a
step for the rounding, ties up, and a relative 2**-31 of the factor (`numerics.dyadic`).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import Dyadic, requantize, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import QuantParams


class RequantizeParams(NamedTuple):
    """The integers of one requantization.

    Attributes:
        dyadic: input scale / output scale, broadcastable to the input.
        x_zero_point: of the input; 0 for an accumulator.
        zero_point: of the output.
        qmin: of the output.
        qmax: of the output.
    """

    dyadic: Dyadic
    x_zero_point: int
    zero_point: int
    qmin: int
    qmax: int

    def scalars(self) -> tuple[int, int, int, int]:
        """(x_zero_point, zero_point, qmin, qmax), the order in which kernels read them."""
        return self.x_zero_point, self.zero_point, self.qmin, self.qmax


def requantize_factor(scale: FloatArray | float, out: QuantParams) -> FloatArray:
    """How many steps of an output one step of an input is.

    Args:
        scale: real value of one input step, () or broadcastable to the output's scale.
        out: the output's parameters, per tensor or per axis.

    Returns:
        ``scale / out.scale`` in float64.
    """
    return np.asarray(np.asarray(scale, np.float64) / out.scale.astype(np.float64))


def requantize_params(
    scale: FloatArray | float, x_zero_point: int, out: QuantParams
) -> RequantizeParams:
    """Integers for one change of scale.

    Args:
        scale: real value of one input step, > 0; () or an array that, with the output's scale,
            broadcasts to the input.
        x_zero_point: of the input.
        out: the output's parameters, with one zero point.

    Returns:
        The integers.

    Raises:
        RangeError: if a factor is not finite or 2**30 or more, or zero points differ.
    """
    zero_point = int(out.zero_point.flat[0])
    if np.any(out.zero_point != zero_point):
        raise RangeError("a requantization's output has a zero point for each channel")
    dyadic = to_dyadic(requantize_factor(scale, out))
    return RequantizeParams(dyadic, x_zero_point, zero_point, out.qmin, out.qmax)


def clamp_params(qmin: int, qmax: int) -> RequantizeParams:
    """Integers of a requantization that only clamps: scale and zero point stay.

    Args:
        qmin: smallest code that is left.
        qmax: largest.

    Returns:
        The integers; the multiplier over ``2**shift`` is exactly 1.
    """
    return RequantizeParams(to_dyadic(1.0), 0, 0, qmin, qmax)


def int_requantize(x: IntArray, p: RequantizeParams) -> IntArray:
    """Bring integers from one scale to another (module docstring's formula).

    Args:
        x: any shape, integers with ``|x - x_zero_point| < 2**31``.
        p: the integers from `requantize_params`.

    Returns:
        int64 in [qmin, qmax], the shape of `x`.
    """
    return requantize(
        np.subtract(x, p.x_zero_point, dtype=np.int64), p.dyadic, p.zero_point, p.qmin, p.qmax
    )
