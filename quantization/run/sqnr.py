"""Signal-to-quantization-noise ratio: how far below a signal its error is, in decibels.

SQNR = 10 log10(sum exact**2 / sum (found - exact)**2)
"""

import math

import numpy as np

from vitq.numerics.arrays import FloatArray

TINY = 1e-30
"""Stands for a power of 0, so that every ratio is a number."""


def decibels(signal: float, noise: float, at_most: float = math.inf) -> float:
    """Return the ratio of two powers in dB.

    Args:
        signal: its power, >= 0; 1 where the noise is a share of it.
        noise: the error's, >= 0, in the same unit.
        at_most: the ratio that an error counts as where it is smaller, such as rounding of float32.
    """
    return min(10 * math.log10(max(signal, TINY) / max(noise, TINY)), at_most)


def sqnr_db(exact: FloatArray, found: FloatArray) -> float:
    """Return the ratio of values to their error in dB.

    Args:
        exact: the signal, any shape.
        found: what stands for it, the same shape.
    """
    wide = exact.astype(np.float64)
    return decibels(float(np.square(wide).sum()), float(np.square(wide - found).sum()))
