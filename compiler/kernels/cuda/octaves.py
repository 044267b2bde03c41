"""Exponents of Shiftmax and the 8-bit weights that they stand for: `numerics.shiftmax` in TIR."""

from typing import NamedTuple

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda.arith import WORDS, rescaled
from vitq.compiler.kernels.cuda.emit import Buffer, Expr, as_word, const, get, keep
from vitq.compiler.kernels.forms.shiftmax import code_weight
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.shiftmax import CodeParams
from vitq.numerics.twin_codes import TwinCodes

LIMIT_INDEX = 3
"""Where `Capped` keeps its limit: multiplier, shift, rounding constant, limit."""


def distance_constants(multiplier: int, shift: int, limit: int) -> IntArray:
    """Return what `capped` reads: ``min(rescale(d), limit)`` for d >= 0 with a result within int32.

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
        """Compute the code of an int32 >= 0."""
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
    """Return the static part of code parameters."""
    return CodeForm(p.grid_bits, p.limit, bool(p.zero_last), p.twin)


def code_of(t: Expr, form: CodeForm) -> Expr:
    """Return the 8-bit Shiftmax weight of an exponent (`numerics.shiftmax.code_weights`)."""
    return code_weight(WORDS, t, t < form.limit, form)
