"""From scores to 8-bit codes in few instructions: `numerics.shiftmax.shiftmax_codes` for a thread.

The exponent ``t = min((d m + half) >> s, limit)`` of a distance d from the row's maximum takes one
multiplication, because everything is shifted up by 32 - s bits, so that t is the upper word of the
sum. Six octaves are added to it, so that its integer part is at once the shift of the code but one:

    code = (y + 2**(n + 6)) >> (n + 7) = ((y >> (n + 6)) + 1) >> 1

and Horner's steps take the fraction as it is: ``(c f + 2**(g-1)) >> g`` is `numerics.exp2.mulhrs`
of c and ``f << (15 - g)``.
"""

from typing import NamedTuple

import numpy as np
from tvm import tirx

from compiler.cuda import intrinsics
from compiler.cuda.emit import WORD_BITS, Buffer, Expr, const, get, keep
from compiler.cuda.octaves import CodeForm, code_form, distance_constants, finish_code
from numerics.arrays import IntArray
from numerics.exp2 import COEFFICIENTS
from numerics.shiftmax import CodeParams, code_weights

OCTAVES = 6
LARGEST = 2**31 - 1


class FastForm(NamedTuple):
    """Static facts of the short code.

    Attributes:
        codes: of the weights.
        limited: whether an exponent behind the limit would show, so that it must be cut.
    """

    codes: CodeForm
    limited: bool


def fast_codes(p: CodeParams) -> tuple[FastForm, IntArray] | None:
    """Constants of the short code.

    Returns:
        Static facts, and (6,) int32: multiplier, both words of the addend, shift up, largest
        distance, largest exponent (six octaves included). None where the numbers do not fit.
    """
    form = code_form(p)
    _, _, half, cut = (int(v) for v in distance_constants(p.multiplier, p.shift, p.limit))
    up, six = WORD_BITS - p.shift, OCTAVES << p.grid_bits
    if p.grid_bits < 1 or up < 0 or cut << up > LARGEST:
        return None
    addend = (half + (six << p.shift)) << up
    if addend >= 1 << 62:
        return None
    reached = (cut * p.multiplier + half) >> p.shift
    words = [p.multiplier, addend & (2**WORD_BITS - 1), addend >> WORD_BITS, up, cut, p.limit + six]
    limited = bool(p.zero_last) or not _constant_behind(p, reached)
    return FastForm(form, limited), np.array(words, np.int64).astype(np.uint32).view(np.int32)


def _constant_behind(p: CodeParams, reached: int) -> bool:
    """Whether all exponents from the limit to the largest one that occurs have the same code."""
    if reached - p.limit > 1 << p.grid_bits:
        return False
    codes = code_weights(np.arange(p.limit, max(reached, p.limit) + 1), p)
    return bool((codes == codes[0]).all())


class FastCodes:
    """The code of a distance from the maximum."""

    def __init__(self, constants: Buffer, form: FastForm) -> None:
        """Read the constants into registers."""
        names = (get(constants, i) for i in range(6))
        self.multiplier, self.low, self.high, self.up, self.cut, self.limit = names
        self.form = form

    def __call__(self, distance: Expr) -> Expr:
        """Of an int32 >= 0."""
        cut = keep(tirx.min(distance, self.cut) << self.up)
        t = keep(intrinsics.mad_high(cut, self.multiplier, self.low, self.high))
        if self.form.limited:
            t = keep(tirx.min(t, self.limit))
        bits = self.form.codes.grid_bits
        fraction = keep(t & const((1 << bits) - 1))
        y: Expr = const(COEFFICIENTS[3])
        for c in reversed(COEFFICIENTS[:3]):
            y = keep((y * fraction + const((c << bits) + (1 << (bits - 1)))) >> const(bits))
        code = keep((keep(y >> (t >> const(bits))) + const(1)) >> const(1))
        return finish_code(code, t < self.limit, self.form.codes)
