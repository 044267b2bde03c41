"""Residual addition: two integer tensors of different scales, one rounding.

    y = clamp(((a' * ma + b' * mb + 2**(s - 1)) >> s) + zero_point, qmin, qmax)
    a' = a - a_zero_point, b' = b - b_zero_point

ma / 2**s and mb / 2**s approximate the input scales over the output's scale. The multipliers have
at most 15 bits (|m| <= 2**14). With int16 codes and zero points of 0 the sum and its rounding
constant always stay in int32 (2 * 2**15 * 2**14 + 2**29 < 2**31); for other codes
`relay_passes.check_accumulators` proves it for the zero points and multipliers at hand, or
refuses. Where an input has the output's scale, its multiplier is a power of two and
that input passes exactly.

I-ViT adds in int32 after two separate requantizations (two roundings); here there is one.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import to_shared_dyadic
from vitq.numerics.qparams import QuantParams

MULTIPLIER_BITS = 14
SHIFT_LIMIT = 30


class AddParams(NamedTuple):
    """The integers of one addition, in the order in which a kernel reads them (int64 each)."""

    a_zero_point: int
    b_zero_point: int
    a_multiplier: int
    b_multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


def add_params(
    a_scale: float, a_zero_point: int, b_scale: float, b_zero_point: int, out: QuantParams
) -> AddParams:
    """Integers for ``a + b -> out``.

    Args:
        a_scale: real value of one step of `a`, > 0.
        a_zero_point: of `a`.
        b_scale: of `b`, > 0.
        b_zero_point: of `b`.
        out: the sum's parameters, per tensor.

    Returns:
        The integers.
    """
    out_scale = float(out.scale)
    dyadic = to_shared_dyadic(
        np.array([a_scale / out_scale, b_scale / out_scale]), MULTIPLIER_BITS, SHIFT_LIMIT
    )
    a_multiplier, b_multiplier = (int(m) for m in dyadic.multiplier)
    return AddParams(
        a_zero_point,
        b_zero_point,
        a_multiplier,
        b_multiplier,
        int(dyadic.shift[0]),
        int(out.zero_point),
        out.qmin,
        out.qmax,
    )


def int_add(a: IntArray, b: IntArray, p: AddParams) -> IntArray:
    """Add two integer tensors (module docstring's formula).

    Args:
        a: any shape, 16-bit codes at most.
        b: broadcastable to `a`.
        p: the integers from `add_params`.

    Returns:
        int64 in [qmin, qmax], the shape of `a`.
    """
    total = (a.astype(np.int64) - p.a_zero_point) * p.a_multiplier
    total = total + (b.astype(np.int64) - p.b_zero_point) * p.b_multiplier
    rounded = (total + (1 << (p.shift - 1))) >> p.shift
    return np.clip(rounded + p.zero_point, p.qmin, p.qmax)
