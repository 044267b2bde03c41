r"""Dyadic numbers and requantization.

A real factor ``r`` becomes ``multiplier / 2**shift``: an int32 multiplier and a right shift
(I-ViT, arXiv:2207.01405, Eq. 4, after HAWQ-V3). Requantizing an accumulator is

    q = clamp(((acc * multiplier + 2**(shift - 1)) >> shift) + zero_point, qmin, qmax)

with a 64-bit product and ONE rounding, HALF_UP.

Why this form (it is expensive to change later):

* AVX-512/AVX2 multiply 32 x 32 -> 64 signed in one instruction (``vpmuldq``); NEON has
  ``smull``; CUDA has ``IMAD.WIDE``, which also adds the 64-bit rounding constant for free.
* Everything constant folds into one 64-bit addend for each channel (`addend`):
  ``(acc + bias) * m + half + (zero_point << s) == acc * m + addend``, so that bias, rounding
  and zero point cost one addition together.
* The shift is at most `SHIFT_MAX` = 46. Then ``acc * m`` (62 bits), the zero point
  (16 bits << 46) and the rounding constant never leave int64 together. A factor under 2**-16 has
  fewer than 31 bits of multiplier; at 2**-31 there are still 15.
* Each channel's pair depends on that channel's factor alone, so that splitting or joining
  tensors (q, k, v) never changes a bit.

I-ViT truncates in its kernels and rounds half to even in its simulation; here both are HALF_UP.
The relative error of the factor is at most 2**-31 for r >= 2**-16.
"""

from dataclasses import dataclass

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError

SHIFT_MIN = 1
SHIFT_MAX = 46
MULTIPLIER_BITS = 31
ACC_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Dyadic:
    """``multiplier / 2**shift``, elementwise.

    Attributes:
        multiplier: () or (C,) int32, signed.
        shift: the same shape, int32, 1 to 46.
    """

    multiplier: IntArray
    shift: IntArray

    @property
    def real(self) -> FloatArray:
        """The value as float64, same shape."""
        return self.multiplier.astype(np.float64) / 2.0 ** self.shift.astype(np.float64)


def scalar_dyadic(multiplier: int, shift: int) -> Dyadic:
    """One pair of integers as a dyadic number."""
    return Dyadic(np.asarray(multiplier, np.int32), np.asarray(shift, np.int32))


def to_dyadic(factor: FloatArray | float) -> Dyadic:
    """Approximate real factors by dyadic numbers with 31-bit multipliers.

    Args:
        factor: () or (C,), any sign, finite, ``|factor| < 2**30``.

    Returns:
        The nearest dyadic number for each element (HALF_EVEN on the multiplier); a zero stays zero.

    Raises:
        RangeError: if a factor is not finite or too large.
    """
    real = np.asarray(factor, np.float64)
    if not np.all(np.isfinite(real)):
        raise RangeError("a requantization factor is not finite: check the scales")
    _, exponent = np.frexp(real)
    shift = np.minimum(MULTIPLIER_BITS - exponent.astype(np.int64), SHIFT_MAX)
    multiplier = np.rint(np.ldexp(real, shift))
    carried = np.abs(multiplier) >= 2.0**MULTIPLIER_BITS
    shift = np.where(carried, shift - 1, shift)
    multiplier = np.where(carried, np.rint(np.ldexp(real, shift)), multiplier)
    shift = np.where(multiplier == 0, SHIFT_MIN, shift)
    if np.any(shift < SHIFT_MIN):
        raise RangeError(
            f"a requantization factor of {np.abs(real).max():.3g} is too large: check the scales"
        )
    return Dyadic(multiplier.astype(np.int32), shift.astype(np.int32))


def to_shared_dyadic(factors: FloatArray, bits: int, shift_limit: int = SHIFT_MAX) -> Dyadic:
    """Dyadic numbers with one common shift, for sums that are rounded once.

    Args:
        factors: (C,) float64, finite.
        bits: the largest multiplier's width; ``|multiplier| <= 2**bits``.
        shift_limit: the largest shift allowed; small factors lose multiplier bits to it.

    Returns:
        Multipliers (C,) and one shift repeated (C,).
    """
    factors = np.asarray(factors, np.float64)
    largest = np.abs(factors).max()
    if not np.isfinite(largest):
        raise RangeError("a requantization factor is not finite: check the scales")
    _, exponent = np.frexp(largest)
    shift = min(bits - int(exponent), shift_limit) if largest > 0 else shift_limit
    if shift < SHIFT_MIN:
        raise RangeError(f"a requantization factor of {largest:.3g} is too large: check the scales")
    multiplier = np.rint(np.ldexp(factors, shift)).astype(np.int32)
    return Dyadic(multiplier, np.full(factors.shape, shift, np.int32))


def rescale(acc: IntArray, dyadic: Dyadic) -> IntArray:
    """``(acc * multiplier + 2**(shift - 1)) >> shift``: one HALF_UP rounding, no clamp.

    Args:
        acc: (..., C) or any shape for a scalar dyadic; values in int32's range.
        dyadic: () or (C,), along the last axis.

    Returns:
        int64, the shape of ``acc``.
    """
    product = acc.astype(np.int64, copy=False) * dyadic.multiplier.astype(np.int64)
    shift = dyadic.shift.astype(np.int64)
    return (product + (np.int64(1) << (shift - 1))) >> shift


def requantize(acc: IntArray, dyadic: Dyadic, zero_point: int, qmin: int, qmax: int) -> IntArray:
    """Bring integers from one scale to another (module docstring's formula).

    Args:
        acc: (..., C), values in int32's range.
        dyadic: input scale / output scale, () or (C,).
        zero_point: of the output.
        qmin: smallest output code.
        qmax: largest output code.

    Returns:
        int64 in [qmin, qmax]; the caller chooses the storage type.
    """
    return np.clip(rescale(acc, dyadic) + zero_point, qmin, qmax)


def addend(bias: IntArray, dyadic: Dyadic, zero_point: int) -> IntArray:
    """Bias, rounding constant and zero point as one int64 for each channel.

    ``(acc * m + addend) >> s`` equals ``rescale(acc + bias) + zero_point`` exactly.

    Args:
        bias: (C,) int32.
        dyadic: (C,).
        zero_point: of the output, within int16.

    Returns:
        (C,) int64.
    """
    shift = dyadic.shift.astype(np.int64)
    half = np.int64(1) << (shift - 1)
    return (
        np.asarray(bias, np.int64) * dyadic.multiplier.astype(np.int64)
        + half
        + (np.int64(zero_point) << shift)
    )
