r"""ShiftGELU: GELU in integers by shifts, without a division and without a row maximum.

I-ViT (arXiv:2207.01405, Algorithm 2) computes x * sigmoid(1.702 x) from two shift exponentials, a
row maximum and an integer division; its reciprocal gets coarse at small scales and the row maximum
blocks fusion. Here GELU is split into its two asymptotes and one even, small tail,

    gelu(x) = max(x, 0) - h(|x|),   h(u) = u * Q(u),   Q(u) = 1 - Phi(u)

and the normal tail Q is a power of two whose exponent is a cubic:

    Q(u) ~= 2**-g(u),  g(u) = 1.00353171 + 1.129246 u + 0.49882001 u**2 + 0.02488563 u**3

on [0, 4) (the fit's error in h is at most 5.5e-5; beyond 4, h < 1.3e-4 is held). In integers, for
a code x with scale ``sigma`` and ``c = x - x_zero_point``, everything 16-bit, ``mulhrs(a, b) =
(a * b + 2**14) >> 15``:

    v = 2 ((min(|c|, farthest) * mi + half) >> si)     mi / 2**si = sigma * 2**12: u / 4 in Q15
    G = Horner of g / 16 in Q15                                     so that G / 2048 = g
    y = exp2_fraction((G mod 2048) << 4),  n = G >> 11,  e = (y + half) >> n
    h = mulhrs(v, e)                                                u Q(u) in steps of 4 / 32640
    r = (max(c, 0) << up) - ((h * mt + half) >> st)                 steps of sigma / 2**up
    t = (r * mo + half) >> so
    out = clamp(((t + half) >> more) + zero_point)                  half of each shift, 0 for none

``farthest`` is the largest distance for which v stays under 2**15. All multipliers have at most 15
bits and ``si``, ``st``, ``so`` are at most 15, so that each line is one ``mulhrs`` of 16-bit lanes
where the shifts are 15 (``|c| << (15 - si)`` fits, because v begins as u / 8), and every sum stays
in int32 for codes that fit (``relay_passes`` prove it). ``up`` keeps the step of r under 2**-7 for
coarse (8-bit) inputs.

Error against the exact (erf) GELU, before the output's rounding: at most `MAX_ERROR`, plus
2**-14 |x| from the multipliers, plus half a step of r from the rounded tail. The second rounding,
of t, moves a tie by at most 2**-more of half an output step.

With twin ranges (`numerics.twin`: a split k and a shift j) t gives both codes:

    fine   = clamp(((t + half) >> more) + zero_point, qmin, k)
    coarse = clamp((t - ((k - zero_point) << more) + half) >> (more + j), 0, (qmax - k) >> j)
    out    = fine + (coarse << j)

One range is the case k = qmax, where there is no coarse code.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import SHIFT_MIN, to_shared_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.exp2 import ONE, exp2_fraction, mulhrs
from vitq.numerics.qparams import QuantParams
from vitq.numerics.rounding import Rounding, shift_right
from vitq.numerics.twin import Twin, check_twin

HALF_UP = Rounding.HALF_UP
MAX_ERROR = 4e-4
MULTIPLIER_BITS = 15
MULTIPLIER_MAX = 2**MULTIPLIER_BITS - 1
WORD_SHIFT = 15
"""The shift of `numerics.exp2.mulhrs`, and the largest one of a single product."""
SHIFT_LIMIT = 30
STEP_BITS = 7
UP_LIMIT = 8
# g(4 v) / 16 = A0 + A1 v + A2 v**2 + A3 v**3 with v = u / 4 in [0, 1), times 2**15.
EXPONENT_COEFFICIENTS = (2055, 9251, 16345, 3262)
TAIL_RANGE = 4.0
TAIL_LIMIT = 2**14 - 1
"""Of u / 8 in Q15."""


class GeluParams(NamedTuple):
    """The integers of one GELU, in the order in which a kernel reads them (int64 each)."""

    x_zero_point: int
    farthest: int
    in_multiplier: int
    in_shift: int
    up: int
    tail_multiplier: int
    tail_shift: int
    out_multiplier: int
    out_shift: int
    more: int
    split: int
    twin_shift: int
    zero_point: int
    qmin: int
    qmax: int

    @property
    def is_twin(self) -> bool:
        """Whether there is a coarse range."""
        return self.split < self.qmax

    @property
    def split_steps(self) -> int:
        """Where the coarse range begins, in steps of t."""
        return (self.split - self.zero_point) << self.more


def gelu_params(
    scale: float, zero_point: int, out: QuantParams, twin: Twin | None = None
) -> GeluParams:
    """Integers for one input scale and one output quantizer.

    Args:
        scale: real value of one input step, > 0.
        zero_point: of the input.
        out: the output's parameters, per tensor.
        twin: its two ranges, if it has them.

    Returns:
        The integers.

    Raises:
        RangeError: if a scale is not finite or 0, or the output far finer than the input.
    """
    if twin is not None:
        check_twin(twin, out)
    in_multiplier, in_shift = _word_dyadic(scale * 2**WORD_SHIFT / (2 * TAIL_RANGE))
    if in_multiplier < 1:
        raise RangeError(f"a GELU input scale of {scale:.3g} is too small: check the scales")
    up = min(max(int(np.frexp(scale * 2**STEP_BITS)[1]), 0), UP_LIMIT)
    step = scale / 2**up
    tail_multiplier, tail_shift = _word_dyadic(TAIL_RANGE / ONE / step)
    out_multiplier, shift = _word_dyadic(step / float(out.scale), SHIFT_LIMIT)
    out_shift = min(shift, WORD_SHIFT)
    farthest = (((TAIL_LIMIT + 1) << in_shift) - (1 << (in_shift - 1)) - 1) // in_multiplier
    return GeluParams(
        zero_point,
        farthest,
        in_multiplier,
        in_shift,
        up,
        tail_multiplier,
        tail_shift,
        out_multiplier,
        out_shift,
        shift - out_shift,
        *(twin or Twin(out.qmax, 0)),
        int(out.zero_point),
        out.qmin,
        out.qmax,
    )


def _word_dyadic(factor: float, shift_limit: int = WORD_SHIFT) -> tuple[int, int]:
    """Choose a multiplier that is an int16, and its shift."""
    dyadic = to_shared_dyadic(np.array([factor]), MULTIPLIER_BITS, shift_limit)
    multiplier, shift = int(dyadic.multiplier[0]), int(dyadic.shift[0])
    if multiplier > MULTIPLIER_MAX and shift > SHIFT_MIN:
        return multiplier // 2, shift - 1
    return min(multiplier, MULTIPLIER_MAX), shift


def shiftgelu_tail(v: IntArray) -> IntArray:
    """``h(u)`` in steps of 4 / 32640 for ``u = 4 v / 2**15``.

    Args:
        v: any shape, 0 <= v < 2**15.

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
    distance = np.minimum(np.abs(centred), p.farthest)
    eighth = shift_right(distance * p.in_multiplier, p.in_shift, HALF_UP)
    tail = shiftgelu_tail(2 * eighth) * p.tail_multiplier
    rest = (np.maximum(centred, 0) << p.up) - shift_right(tail, p.tail_shift, HALF_UP)
    codes = shift_right(rest * p.out_multiplier, p.out_shift, HALF_UP)
    fine = shift_right(codes, p.more, HALF_UP) + p.zero_point
    if not p.is_twin:
        return np.clip(fine, p.qmin, p.qmax)
    coarse = shift_right(codes - p.split_steps, p.more + p.twin_shift, HALF_UP)
    coarse = np.clip(coarse, 0, (p.qmax - p.split) >> p.twin_shift)
    return np.clip(fine, p.qmin, p.split) + (coarse << p.twin_shift)
