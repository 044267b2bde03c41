"""From scores to 8-bit codes in few instructions: `numerics.shiftmax.shiftmax_codes` for a thread.

The exponent ``t = min((d m + half) >> s, limit)`` of a distance d from the row's maximum takes one
multiplication, because everything is shifted up by 32 - s bits, so that t is the upper word of the
sum: the multiplier, if it then still is a word, or else the distance. The code's shift with its
rounding is another multiplication. Five octaves are added to t, so that its integer part is at once
what that one's factor, a power of two, is shifted by:

    code = (y + 2**(n + 6)) >> (n + 7) = (y * (2**30 >> (n + 5)) + 2**31) >> 32

(Multiplications run beside shifts, additions and bounds, of which a code takes nine, or ten where
the distance is shifted.) Horner's steps take the fraction as it is: ``(c f + 2**(g-1)) >> g`` is
`numerics.exp2.mulhrs` of c and ``f << (15 - g)``.
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

OCTAVES = 5
POWER = 1 << 30
HALF_WORD = -(2**31)
"""The lower word of ``2**31``."""
LARGEST = 2**31 - 1


class FastForm(NamedTuple):
    """Static facts of the short code.

    Attributes:
        codes: of the weights.
        limited: whether an exponent behind the limit would show, so that it must be cut.
        scaled: whether the multiplier is shifted up, as an unsigned word.
    """

    codes: CodeForm
    limited: bool
    scaled: bool


def fast_codes(p: CodeParams) -> tuple[FastForm, IntArray] | None:
    """Constants of the short code.

    Returns:
        Static facts, and (6,) int32: multiplier, both words of the addend, shift up, largest
        distance, largest exponent (five octaves included). None where the numbers do not fit.
    """
    form = code_form(p)
    _, _, half, cut = (int(v) for v in distance_constants(p.multiplier, p.shift, p.limit))
    up, more = WORD_BITS - p.shift, OCTAVES << p.grid_bits
    if p.grid_bits < 1 or up < 0:
        return None
    factor, largest, addend = p.multiplier << up, cut, (half + (more << p.shift)) << up
    scaled = factor < 1 << WORD_BITS
    if not scaled:
        factor, largest = p.multiplier, cut << up
    if largest > LARGEST or addend >= 1 << 62:
        return None
    reached = (cut * p.multiplier + half) >> p.shift
    limited = bool(p.zero_last) or not _constant_behind(p, reached)
    words = [factor, addend & (2**WORD_BITS - 1), addend >> WORD_BITS, up, cut, p.limit + more]
    constants = np.array(words, np.int64).astype(np.uint32).view(np.int32)
    return FastForm(form, limited, scaled), constants


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
        scaled, cut = self.form.scaled, keep(tirx.min(distance, self.cut))
        cut = cut if scaled else keep(cut << self.up)
        t = keep(intrinsics.mad_high(cut, self.multiplier, self.low, self.high, scaled))
        if self.form.limited:
            t = keep(tirx.min(t, self.limit))
        bits = self.form.codes.grid_bits
        fraction = keep(t & const((1 << bits) - 1))
        y: Expr = const(COEFFICIENTS[3])
        for c in reversed(COEFFICIENTS[:3]):
            y = keep((y * fraction + const((c << bits) + (1 << (bits - 1)))) >> const(bits))
        power = keep(const(POWER) >> (t >> const(bits)))
        code = keep(intrinsics.mad_high(y, power, const(HALF_WORD), const(0)))
        return finish_code(code, t < self.limit, self.form.codes)
