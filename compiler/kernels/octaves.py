"""Score distances as Q12 octaves in 16-bit lanes.

``t = (d m + 2**(s-1)) >> s`` for the distance ``d >= 0`` of a score from its row's largest takes
64-bit products. Only the 8-bit code made of t counts, though, and that is 0 from 9 octaves on.
Where ``d = 2**16`` is as far as that, scores can be packed, with saturation, to 16-bit words

    w = min(2**15 - d, 2**15 - 1)      (vpackssdw; -2**15 stands for all that is farther)

and with ``-m = mh * 2**16 + ml``, ``-2**15 <= ml < 2**15``,

    (d m + 2**(s-1)) >> s  =  (w mh + ((w ml) >> 16) + c) >> (s - 16),
    c = (m * 2**15 + 2**(s-1)) / 2**16

takes one ``vpmulhw`` for two registers and one ``vpmaddwd`` for each. It is exact but in two
places: c must be rounded where m is odd, and w stands for ``d = 1`` where d is 0. Neither changes a
code unless t is within 2**-15 of a rounding boundary, which few of the 2**16 distances are.
`half_constants` does not argue about that: it computes the codes of all distances both ways, and
refuses a factor for which they differ.
"""

import functools

import numpy as np

from compiler.kernels.builder import Buffer, Expr, bind, cast, const, load, reinterpret, splat
from compiler.kernels.fixed import Halves
from numerics.arrays import IntArray
from numerics.dyadic import rescale, scalar_dyadic
from numerics.exp2 import exp2_fraction
from numerics.shiftmax import LOG2_FRACTION_BITS, ShiftmaxParams, shiftmax_codes

HALF = 1 << 15
CODE_SHIFT = 7
LAST_OCTAVE = 9
"""From here on codes are 0."""


@functools.lru_cache(maxsize=256)
def _half_constants(multiplier: int, shift: int) -> tuple[int, ...] | None:
    if not 0 < multiplier < 1 << 31:
        return None
    params = ShiftmaxParams(multiplier, shift)
    while multiplier < 1 << 30:  # the same factor, more bits
        multiplier, shift = 2 * multiplier, shift + 1
    if not 17 <= shift <= 31:
        return None
    low = ((HALF - multiplier) & 0xFFFF) - HALF
    high = (-multiplier - low) >> 16
    offset = (multiplier * HALF + (1 << (shift - 1))) >> 16
    distance = np.arange((1 << 16) + 1, dtype=np.int64)
    farthest = int(rescale(distance[-2:-1], scalar_dyadic(params.multiplier, params.shift))[0])
    if farthest < LAST_OCTAVE << LOG2_FRACTION_BITS:
        return None
    codes = shiftmax_codes(-distance, params)
    for c in (offset, offset + 1):
        constants = (high, low, c, shift - 16)
        if np.array_equal(_codes(distance, constants), codes):
            return constants
    return None


def half_constants(multiplier: int, shift: int) -> IntArray | None:
    """(mh, ml, c, s - 16) of the module docstring.

    Args:
        multiplier: of `ShiftmaxParams`.
        shift: of `ShiftmaxParams`.

    Returns:
        The constants as int64, or None where 16 bits do not give the contract's codes.
    """
    constants = _half_constants(multiplier, shift)
    return None if constants is None else np.array(constants, np.int64)


def _codes(distance: IntArray, constants: tuple[int, ...]) -> IntArray:
    """The codes that `HalfOctaves` leads to; -1 where it would overflow."""
    high, low, offset, shift = constants
    word = np.clip(HALF - distance, -HALF, HALF - 1)
    total = word * high + ((word * low) >> 16) + offset
    t = np.minimum(total >> shift, 0xFFFF)
    y = exp2_fraction((t & ((1 << LOG2_FRACTION_BITS) - 1)) << (15 - LOG2_FRACTION_BITS))
    n = t >> LOG2_FRACTION_BITS
    codes = (y + (np.int64(1) << (CODE_SHIFT - 1 + n))) >> (CODE_SHIFT + n)
    return np.where((total >= 0) & (total < 1 << 31), codes, -1)


class HalfOctaves:
    """Emits the module docstring's words and octaves, with constants read from a buffer."""

    def __init__(self, constants: Buffer, halves: Halves) -> None:
        """Read the constants.

        Args:
            constants: int64 (4,) from `half_constants`.
            halves: the processor's 16-bit lanes.
        """
        high, low, self.offset, self.shift = (
            bind(cast(load(constants, i), "int32")) for i in range(4)
        )
        lanes = halves.lanes // 2
        pair = bind((high & 0xFFFF) | const(1 << 16, "int32"))
        self.high = bind(reinterpret(splat(pair, lanes), f"int16x{halves.lanes}"))
        self.low = splat(bind(cast(low, "int16")), halves.lanes)
        self.halves, self.lanes = halves, lanes

    def base(self, top: Expr) -> Expr:
        """What is subtracted from a row's scores, for its largest score."""
        return bind(splat(top - HALF, self.lanes))

    def __call__(self, base: Expr, scores: tuple[Expr, Expr]) -> Expr:
        """The octaves of two registers of scores, as `Halves.pack` arranges them.

        They are unsigned; 65535 stands for all that is larger.
        """
        q = self.halves
        word = q.pack(*(bind(s - base) for s in scores))
        rest = q.multiply_high(word, self.low)
        parts = []
        for pairs in q.unpack(word, rest):
            total = q.multiply_pairs(pairs, self.high) + splat(self.offset, self.lanes)
            parts.append(bind(total >> splat(self.shift, self.lanes)))
        return q.pack_unsigned(*parts)
