"""From scores to 8-bit codes in few instructions: `numerics.shiftmax.shiftmax_codes` for a thread.

The exponent ``t = min((d m + half) >> s, limit)`` of a distance d from the row's maximum takes one
multiplication: everything is shifted up by 32 - s bits, so that t is the upper word of the sum. The
multiplier is shifted, if it then still is a word, or else the distance; where s is more than 32,
the upper word is shifted down. The code's shift with its rounding is another multiplication. Five
octaves are added to t, so that its integer part is at once what that one's factor, a power of two,
is shifted by:

    code = (y + 2**(n + 6)) >> (n + 7) = (y * (2**30 >> (n + 5)) + 2**31) >> 32

(Multiplications run beside shifts, additions and bounds, of which a code takes nine, or ten where
the distance or the exponent is shifted.) Horner's steps take the fraction as it is:
``(c f + 2**(g-1)) >> g`` is `numerics.exp2.mulhrs` of c and ``f << (15 - g)``.
"""

from typing import NamedTuple

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import WORDS
from vitq.compiler.kernels.cuda.emit import WORD_BITS, Buffer, Expr, const, get, keep
from vitq.compiler.kernels.cuda.octaves import CodeForm, code_form, distance_constants
from vitq.compiler.kernels.forms.shiftmax import finish_weight
from vitq.numerics.arrays import IntArray
from vitq.numerics.exp2 import COEFFICIENTS
from vitq.numerics.shiftmax import CodeParams, code_weights

OCTAVES = 5
POWER = 1 << 30
HALF_WORD = -(2**31)
"""The lower word of ``2**31``."""
LARGEST = 2**31 - 1
MULTIPLIER, DISTANCE, EXPONENT = "multiplier", "distance", "exponent"


class FastForm(NamedTuple):
    """Static facts of the short code.

    Attributes:
        codes: of the weights.
        limited: whether an exponent behind the limit would show, so that it must be cut.
        shifted: what makes up for a shift that is not 32: `MULTIPLIER`, `DISTANCE` or `EXPONENT`.
    """

    codes: CodeForm
    limited: bool
    shifted: str


def fast_codes(p: CodeParams) -> tuple[FastForm, IntArray] | None:
    """Constants of the short code.

    Returns:
        Static facts, and (6,) int32: multiplier, both words of the addend, by how much the distance
        or the exponent is shifted, largest distance, largest exponent (five octaves included). None
        where the numbers do not fit.
    """
    form = code_form(p)
    _, _, half, cut = (int(v) for v in distance_constants(p.multiplier, p.shift, p.limit))
    up, more = max(WORD_BITS - p.shift, 0), OCTAVES << p.grid_bits
    down, reached = max(p.shift - WORD_BITS, 0), (cut * p.multiplier + half) >> p.shift
    factor, largest, addend = p.multiplier << up, cut, (half + (more << p.shift)) << up
    shifted = EXPONENT if down else MULTIPLIER
    if factor >= 1 << WORD_BITS:
        factor, largest, shifted = p.multiplier, cut << up, DISTANCE
    fits = largest <= LARGEST and addend < 1 << 62 and (reached + more) << down <= LARGEST
    if p.grid_bits < 1 or not fits:
        return None
    limited = bool(p.zero_last) or not _constant_behind(p, reached)
    low, high = addend & (2**WORD_BITS - 1), addend >> WORD_BITS
    words = [factor, low, high, up or down, cut, p.limit + more]
    constants = np.array(words, np.int64).astype(np.uint32).view(np.int32)
    return FastForm(form, limited, shifted), constants


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
        self.multiplier, self.low, self.high, self.by, self.cut, self.limit = names
        self.form = form

    def __call__(self, distance: Expr) -> Expr:
        """Compute the code of an int32 >= 0."""
        shifted, cut = self.form.shifted, keep(tirx.min(distance, self.cut))
        if shifted == DISTANCE:
            cut = keep(cut << self.by)
        unsigned = shifted == MULTIPLIER
        t = keep(intrinsics.mad_high(cut, self.multiplier, self.low, self.high, unsigned))
        if shifted == EXPONENT:
            t = keep(t >> self.by)
        if self.form.limited:
            t = keep(tirx.min(t, self.limit))
        bits = self.form.codes.grid_bits
        fraction = keep(t & const((1 << bits) - 1))
        y: Expr = const(COEFFICIENTS[3])
        for c in reversed(COEFFICIENTS[:3]):
            y = keep((y * fraction + const((c << bits) + (1 << (bits - 1)))) >> const(bits))
        power = keep(const(POWER) >> (t >> const(bits)))
        code = keep(intrinsics.mad_high(y, power, const(HALF_WORD), const(0)))
        return finish_weight(WORDS, code, t < self.limit, self.form.codes)
