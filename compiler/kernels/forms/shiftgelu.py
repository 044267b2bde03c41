"""ShiftGELU: `numerics.shiftgelu`."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from vitq.compiler.kernels.forms.exp2 import exp2_fraction, horner
from vitq.compiler.kernels.forms.lanes import Expr, Lanes
from vitq.numerics.shiftgelu import EXPONENT_COEFFICIENTS, GeluParams

OCTAVE_BITS = 11
"""Fraction bits of the tail's exponent."""
FRACTION_UP = 15 - OCTAVE_BITS


Rounded = Callable[[Expr], Expr]
"""A right shift by what is the same in all lanes, 0 or more, that rounds half up."""


class Coarse(Protocol):
    """The coarse range of twin ranges; what it gives may be evaluated when it is asked."""

    @property
    def steps(self) -> Expr:
        """Where it begins, in steps of t."""

    @property
    def down(self) -> Rounded:
        """From t to its codes."""

    @property
    def largest(self) -> Expr:
        """Its largest code."""


class GeluShifts(NamedTuple):
    """The shifts of a GELU, in the order in which it uses them."""

    into: Rounded
    tail: Rounded
    out: Rounded
    more: Rounded


def shiftgelu_tail(q: Lanes, v: Expr) -> Expr:
    """`numerics.shiftgelu.shiftgelu_tail`; its exponent is at least 1."""
    g = horner(q, EXPONENT_COEFFICIENTS, v)
    n = q.amount(g >> q.const(OCTAVE_BITS, g))
    fraction = (g & q.const((1 << OCTAVE_BITS) - 1, g)) << q.const(FRACTION_UP, g)
    return q.mulhrs(v, q.rounding_shift(exp2_fraction(q, q.keep(fraction)), n, least=1))


def shiftgelu(q: Lanes, x: Expr, p: GeluParams, shifts: GeluShifts, twin: Coarse | None) -> Expr:
    """`numerics.shiftgelu.shiftgelu` in lanes of 32 bits.

    Args:
        q: lanes.
        x: the codes.
        p: the parameters, each the same in all lanes.
        shifts: the parameters' shifts.
        twin: the coarse range, if there is one.
    """
    none = q.const(0, x)
    centred = q.keep(x - p.x_zero_point)
    distance = q.keep(q.minimum(q.maximum(centred, none - centred), p.farthest))
    eighth = q.keep(shifts.into(distance * p.in_multiplier))
    tail = shifts.tail(shiftgelu_tail(q, q.keep(eighth + eighth)) * p.tail_multiplier)
    rest = q.keep((q.maximum(centred, none) << p.up) - tail)
    t = q.keep(shifts.out(rest * p.out_multiplier))
    fine = q.keep(shifts.more(t)) + p.zero_point
    if twin is None:
        return q.clamp(fine, p.qmin, p.qmax)
    above = t - twin.steps
    coarse = q.clamp(q.keep(twin.down(above)), 0, twin.largest) << p.twin_shift
    return q.keep(q.clamp(fine, p.qmin, p.split) + coarse)
