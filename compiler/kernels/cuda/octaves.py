"""Exponents of Shiftmax and the 8-bit weights that they stand for: `numerics.shiftmax` in TIR."""

from typing import NamedTuple

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda.arith import exp2_fraction, order, rescaled
from vitq.compiler.kernels.cuda.emit import Buffer, Expr, as_word, const, get, keep
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.shiftmax import LOG2_FRACTION_BITS, CodeParams
from vitq.numerics.twin_codes import ONE_RANGE, WEIGHT_MAX, TwinCodes

LIMIT_INDEX = 3
"""Where `Capped` keeps its limit: multiplier, shift, rounding constant, limit."""


def distance_constants(multiplier: int, shift: int, limit: int) -> IntArray:
    """What `capped` reads: ``min(rescale(d), limit)`` for d >= 0 with a result within int32.

    The last value is the smallest d that reaches the limit: distances are cut there first.

    Args:
        multiplier: of the dyadic number, >= 0.
        shift: of it.
        limit: of the result.

    Returns:
        (4,) int64: multiplier, shift, rounding constant, cut.
    """
    half = 1 << (shift - 1)
    reach = ACC_LIMIT
    if multiplier > 0:
        reach = min(max(-(-((limit << shift) - half) // multiplier), 0), ACC_LIMIT)
    return np.array([multiplier, shift, half, reach], np.int64)


class Capped:
    """``min(rescale(d), limit)``; see `distance_constants`."""

    def __init__(self, constants: Buffer, limit: int) -> None:
        """Read the constants into registers."""
        self.multiplier, self.shift, self.half = (get(constants, i) for i in range(LIMIT_INDEX))
        self.cut = as_word(constants[LIMIT_INDEX])
        self.limit = limit

    def __call__(self, distance: Expr) -> Expr:
        """Of an int32 >= 0."""
        cut = keep(tirx.min(distance, self.cut))
        scaled = rescaled(cut, self.multiplier, self.half, self.shift)
        return keep(tirx.min(scaled.astype("int32"), const(self.limit)))


class CodeForm(NamedTuple):
    """What of `numerics.shiftmax.CodeParams` is part of the code.

    Attributes:
        grid_bits: of the exponent.
        limit: of the exponent.
        zero_last: whether `limit` stands for a weight of 0.
        twin: the ranges of the weights.
    """

    grid_bits: int
    limit: int
    zero_last: bool
    twin: TwinCodes


def code_form(p: CodeParams) -> CodeForm:
    """The static part of code parameters."""
    return CodeForm(p.grid_bits, p.limit, bool(p.zero_last), p.twin)


def octaves(t: Expr, grid_bits: int = LOG2_FRACTION_BITS) -> tuple[Expr, Expr]:
    """Mantissa and shift of ``2**-(t / 2**grid_bits)``."""
    fraction = (t & const((1 << grid_bits) - 1)) << const(15 - grid_bits)
    return exp2_fraction(keep(fraction)), keep(t >> const(grid_bits))


def code_of(t: Expr, form: CodeForm) -> Expr:
    """The 8-bit Shiftmax weight of an exponent (`numerics.shiftmax.code_weights`)."""
    y, n = octaves(t, form.grid_bits)
    code = keep((y + (const(1) << (n + const(6)))) >> (n + const(7)))
    return finish_code(code, t < form.limit, form)


def finish_code(code: Expr, counts: Expr, form: CodeForm) -> Expr:
    """A weight's last steps: 0 behind the limit, one of two ranges."""
    if form.zero_last:
        code = order(counts, code, const(0))
    return code if form.twin == ONE_RANGE else _twin_weight(code, form.twin)


def _twin_weight(w: Expr, twin: TwinCodes) -> Expr:
    """`numerics.twin_codes.twin_weights` of one weight."""
    fine = w
    if twin.fine:
        last = const(twin.border - (1 << twin.fine))
        fine = keep(tirx.min(_to_multiple(w, twin.fine), last))
    coarse = keep(tirx.min(_to_multiple(w, twin.coarse), const(WEIGHT_MAX)))
    return order(w < twin.border, fine, coarse)


def _to_multiple(w: Expr, bits: int) -> Expr:
    """The nearest multiple of ``2**bits``, half up."""
    return (w + const(1 << (bits - 1))) & const(-(1 << bits))
