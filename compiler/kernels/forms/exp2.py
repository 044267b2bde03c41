"""Powers of two of a fraction: `numerics.exp2`, and the octaves of an exponent on a grid."""

import numpy as np

from vitq.compiler.kernels.forms.lanes import Expr, Lanes
from vitq.numerics import exp2
from vitq.numerics.exp2 import COEFFICIENTS, FRACTION_BITS, ONE

HALF_OCTAVE = int(exp2.exp2_fraction(np.array(1 << (FRACTION_BITS - 1))))
"""The mantissa of half an octave, 1 / sqrt(2)."""


def horner(q: Lanes, coefficients: tuple[int, ...], x: Expr) -> Expr:
    """``c0 + mulhrs(c1 + mulhrs(...), x)``, coefficients from the constant term up."""
    y = q.const(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        y = q.mulhrs_add(c, y, x)
    return y


def exp2_fraction(q: Lanes, fraction: Expr) -> Expr:
    """`numerics.exp2.exp2_fraction`."""
    return horner(q, COEFFICIENTS, fraction)


def octaves(q: Lanes, k: Expr, grid_bits: int) -> tuple[Expr, Expr]:
    """Split ``2**-(k / 2**grid_bits)`` into a mantissa and a shift, unsigned 16-bit values.

    On a grid of one or two steps there are as many mantissas: no polynomial is needed.

    Args:
        q: lanes.
        k: the exponent, not negative.
        grid_bits: 0 to 12.
    """
    if grid_bits == 0 and q.few_mantissas:
        return q.const(ONE, k), k
    up = FRACTION_BITS - grid_bits
    n = q.shift_down(k, grid_bits)
    if grid_bits == 1 and q.few_mantissas:
        odd = q.const(0, k) - (k & q.const(1, k))
        return q.keep(q.const(ONE, k) - (odd & q.const(ONE - HALF_OCTAVE, k))), n
    fraction = (k & q.const((1 << grid_bits) - 1, k)) << q.const(up, k)
    return exp2_fraction(q, q.keep(fraction)), n
