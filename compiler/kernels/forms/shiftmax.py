"""Shiftmax's weights and exponentials of an exponent: `numerics.shiftmax`."""

from typing import Protocol

from vitq.compiler.kernels.forms.exp2 import octaves
from vitq.compiler.kernels.forms.lanes import Expr, Lanes
from vitq.numerics.shiftmax import LOG2_FRACTION_BITS
from vitq.numerics.twin_codes import ONE_RANGE, WEIGHT_MAX, TwinCodes

CODE_SHIFT = 7
"""From a mantissa to an 8-bit code."""


class CodeFacts(Protocol):
    """What of `numerics.shiftmax.CodeParams` is part of the code."""

    @property
    def grid_bits(self) -> int:
        """Bits of the exponent's grid."""

    @property
    def zero_last(self) -> bool:
        """Whether the exponent's limit stands for a weight of 0."""

    @property
    def twin(self) -> TwinCodes:
        """The ranges of the weights."""


def code_weight(q: Lanes, k: Expr, counts: Expr, facts: CodeFacts) -> Expr:
    """`numerics.shiftmax.code_weights`.

    Args:
        q: lanes.
        k: the exponent, at most its limit.
        counts: whether it is below the limit.
        facts: static.
    """
    y, n = octaves(q, k, facts.grid_bits)
    return finish_weight(q, q.rounding_shift(y, n, CODE_SHIFT), counts, facts)


def finish_weight(q: Lanes, weight: Expr, counts: Expr, facts: CodeFacts) -> Expr:
    """Finish a weight: 0 at the limit, one of two ranges."""
    if facts.zero_last:
        weight = q.keep(q.select(counts, weight, q.const(0, weight)))
    return weight if facts.twin == ONE_RANGE else twin_weight(q, weight, facts.twin)


def twin_weight(q: Lanes, w: Expr, twin: TwinCodes) -> Expr:
    """`numerics.twin_codes.twin_weights`."""
    fine = w
    if twin.fine:
        last = q.const(twin.border - (1 << twin.fine), w)
        fine = q.minimum(_nearest_multiple(q, w, twin.fine), last)
    coarse = q.minimum(_nearest_multiple(q, w, twin.coarse), q.const(WEIGHT_MAX, w))
    return q.keep(q.select(w < q.const(twin.border, w), q.keep(fine), q.keep(coarse)))


def _nearest_multiple(q: Lanes, w: Expr, bits: int) -> Expr:
    """Return the nearest multiple of ``2**bits``, half up."""
    return q.keep(q.keep(w + q.const(1 << (bits - 1), w)) & q.const(-(1 << bits), w))


def exponential(q: Lanes, t: Expr) -> Expr:
    """Return the 15-bit exponential of an exponent in Q12, for the normalized form."""
    y, n = octaves(q, t, LOG2_FRACTION_BITS)
    return q.rounding_shift(y, n)
