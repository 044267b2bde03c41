r"""ShiftGELU: GELU in integers by shifts, without a division and without a row maximum.

I-ViT (arXiv:2207.01405, Algorithm 2) computes x * sigmoid(1.702 x) from two shift exponentials, a
row maximum and an integer division; its reciprocal gets coarse at small scales and the row maximum
blocks fusion. Here GELU is split into its two asymptotes and one even, small tail,

    gelu(x) = max(x, 0) - h(|x|),   h(u) = u * Q(u),   Q(u) = 1 - Phi(u)

and the normal tail Q is a power of two whose exponent is a cubic:

    Q(u) ~= 2**-g(u),  g(u) = 1.00353171 + 1.129246 u + 0.49882001 u**2 + 0.02488563 u**3

on [0, 4) (the fit's error in h is at most 5.5e-5; beyond 4, h < 1.3e-4 is held). In integers, for
a code x with scale ``sigma``, everything 16-bit and ``mulhrs(a, b) = (a * b + 2**14) >> 15``:

    v = min(rescale(|x - x_zero_point|, sigma * 2**13), 32767)      u / 4 in Q15
    G = Horner of g / 16 in Q15 (so that G / 2048 = g)
    y = exp2_fraction((G mod 2048) << 4),  n = G >> 11,  e = (y + half) >> n
    h = mulhrs(v, e)                                                u Q(u) in steps of 4 / 32640
    out = clamp(((max(x', 0) * m1 - h * m2 + 2**(s-1)) >> s) + zero_point)

m1 and m2 have at most 15 bits, so the sum stays in int32. Error against the exact (erf) GELU,
before the output's rounding: at most `MAX_ERROR` plus 2**-14 |x| from the multiplier m1 plus 0.085
/ m2 output steps from m2, which is small (a few bits) only for input scales above 0.01, as of 8-bit
inputs.
"""

from typing import NamedTuple

import numpy as np

from numerics.arrays import IntArray
from numerics.dyadic import rescale, scalar_dyadic, to_dyadic, to_shared_dyadic
from numerics.exp2 import ONE, exp2_fraction, mulhrs
from numerics.qparams import QuantParams

MAX_ERROR = 4e-4
MULTIPLIER_BITS = 14
SHIFT_LIMIT = 30
# g(4 v) / 16 = A0 + A1 v + A2 v**2 + A3 v**3 with v = u / 4 in [0, 1), times 2**15.
EXPONENT_COEFFICIENTS = (2055, 9251, 16345, 3262)
TAIL_RANGE = 4.0
TAIL_LIMIT = 32767


class GeluParams(NamedTuple):
    """The integers of one GELU, in the order in which a kernel reads them (int64 each)."""

    x_zero_point: int
    in_multiplier: int
    in_shift: int
    linear_multiplier: int
    tail_multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


def gelu_params(scale: float, zero_point: int, out: QuantParams) -> GeluParams:
    """Integers for one input scale and one output quantizer.

    Args:
        scale: real value of one input step, > 0.
        zero_point: of the input.
        out: the output's parameters, per tensor.

    Returns:
        The integers.
    """
    to_tail = to_dyadic(scale * 2**15 / TAIL_RANGE)
    out_scale = float(out.scale)
    pair = np.array([scale / out_scale, TAIL_RANGE / ONE / out_scale])
    dyadic = to_shared_dyadic(pair, MULTIPLIER_BITS, SHIFT_LIMIT)
    return GeluParams(
        zero_point,
        int(to_tail.multiplier),
        int(to_tail.shift),
        int(dyadic.multiplier[0]),
        int(dyadic.multiplier[1]),
        int(dyadic.shift[0]),
        int(out.zero_point),
        out.qmin,
        out.qmax,
    )


def shiftgelu_tail(v: IntArray) -> IntArray:
    """``h(u)`` in steps of 4 / 32640 for ``u = 4 v / 2**15``.

    Args:
        v: any shape, 0 <= v <= 32767.

    Returns:
        int64 in [0, 1500].
    """
    a0, a1, a2, a3 = EXPONENT_COEFFICIENTS
    g = a2 + mulhrs(a3, v)
    g = a1 + mulhrs(g, v)
    g = a0 + mulhrs(g, v)
    n = g >> 11
    y = exp2_fraction((g & 2047) << 4)
    e = (y + ((np.int64(1) << n) >> 1)) >> n
    return mulhrs(v, e)


def shiftgelu(x: IntArray, p: GeluParams) -> IntArray:
    """GELU of integer codes (module docstring's formula).

    Args:
        x: any shape, 16-bit codes at most.
        p: the integers from `gelu_params`.

    Returns:
        int64 in [qmin, qmax], the shape of `x`.
    """
    centred = x.astype(np.int64) - p.x_zero_point
    to_tail = scalar_dyadic(p.in_multiplier, p.in_shift)
    v = np.minimum(rescale(np.abs(centred), to_tail), TAIL_LIMIT)
    total = np.maximum(centred, 0) * p.linear_multiplier
    total = total - shiftgelu_tail(v) * p.tail_multiplier
    rounded = (total + (1 << (p.shift - 1))) >> p.shift
    return np.clip(rounded + p.zero_point, p.qmin, p.qmax)
