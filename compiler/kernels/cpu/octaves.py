"""A score's distance from its row's largest in steps of the exponent's grid, in 16-bit lanes.

``k = (d m + 2**(s-1)) >> s`` for the distance ``d >= 0`` takes 64-bit products. Only the 8-bit
code made of k counts, though, and that is the same for all k from some place on (0 from 9 octaves
on, or the last log code). Where ``d = 2**16`` is as far as that, scores can be packed, with
saturation, to 16-bit words

    w = min(2**15 - d, 2**15 - 1)      (vpackssdw; -2**15 stands for all that is farther)

and with ``-m = mh * 2**16 + ml``, ``-2**15 <= ml < 2**15``,

    (d m + 2**(s-1)) >> s  =  (w mh + ((w ml) >> 16) + c) >> (s - 16),
    c = (m * 2**15 + 2**(s-1)) / 2**16

takes one ``vpmulhw`` for two registers and one ``vpmaddwd`` for each. It is exact but in two
places: c must be rounded where m is odd, and w stands for ``d = 1`` where d is 0. Neither changes a
code unless k is within 2**-15 of a rounding boundary, which few of the 2**16 distances are.
`half_constants` does not argue about that: it computes the codes of all distances both ways, and
refuses a factor for which they differ.
"""

import functools

import numpy as np

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    const,
    load,
    reinterpret,
    splat,
)
from vitq.compiler.kernels.cpu.fixed import Halves
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import rescale, scalar_dyadic
from vitq.numerics.shiftmax import CodeParams, code_weights, shiftmax_codes

HALF = 1 << 15
LARGEST_SHIFT = 46


@functools.lru_cache(maxsize=256)
def settled(p: CodeParams) -> tuple[int, int]:
    """From which exponent on all codes are the same, and what they are."""
    codes = code_weights(np.arange(p.limit + 1), p)
    other = np.flatnonzero(codes != codes[-1])
    return (int(other[-1]) + 1 if len(other) else 0), int(codes[-1])


@functools.lru_cache(maxsize=256)
def _half_constants(p: CodeParams) -> tuple[int, ...] | None:
    multiplier, shift = p.multiplier, p.shift
    if not 0 < multiplier < 1 << 31:
        return None
    while multiplier < 1 << 30:  # the same factor, more bits
        multiplier, shift = 2 * multiplier, shift + 1
    if not 17 <= shift <= LARGEST_SHIFT:
        return None
    low = ((HALF - multiplier) & 0xFFFF) - HALF
    high = (-multiplier - low) >> 16
    offset = (multiplier * HALF + (1 << (shift - 1))) >> 16
    distance = np.arange((1 << 16) + 1, dtype=np.int64)
    farthest = int(rescale(distance[-2:-1], scalar_dyadic(p.multiplier, p.shift))[0])
    if farthest < settled(p)[0]:
        return None
    codes = shiftmax_codes(-distance, p)
    for c in (offset, offset + 1):
        constants = (high, low, c, shift - 16)
        if np.array_equal(_codes(distance, constants, p), codes):
            return (*constants, p.limit)
    return None


def half_constants(p: CodeParams) -> IntArray | None:
    """(mh, ml, c, s - 16) of the module docstring, and the limit of k.

    Args:
        p: the contract's integers.

    Returns:
        The constants as int64, or None where 16 bits do not give the contract's codes.
    """
    constants = _half_constants(p)
    return None if constants is None else np.array(constants, np.int64)


def _codes(distance: IntArray, constants: tuple[int, ...], p: CodeParams) -> IntArray:
    """Return the codes that `HalfOctaves` leads to; -1 where it would overflow."""
    high, low, offset, shift = constants
    word = np.clip(HALF - distance, -HALF, HALF - 1)
    total = word * high + ((word * low) >> 16) + offset
    codes = code_weights(np.clip(total >> shift, 0, p.limit), p)
    return np.where((total >= 0) & (total < 1 << 31), codes, -1)


class HalfOctaves:
    """Emits the module docstring's words and exponents, with constants read from a buffer."""

    def __init__(self, constants: Buffer, halves: Halves) -> None:
        """Read the constants.

        Args:
            constants: int64 (5,) from `half_constants`.
            halves: the processor's 16-bit lanes.
        """
        high, low, self.offset, self.shift = (
            bind(cast(load(constants, i), "int32")) for i in range(4)
        )
        self.limit = load(constants, 4)
        lanes = halves.lanes // 2
        pair = bind((high & 0xFFFF) | const(1 << 16, "int32"))
        self.high = bind(reinterpret(splat(pair, lanes), f"int16x{halves.lanes}"))
        self.low = splat(bind(cast(low, "int16")), halves.lanes)
        self.halves, self.lanes = halves, lanes

    def base(self, top: Expr) -> Expr:
        """Return what is subtracted from a row's scores, for its largest score."""
        return bind(splat(top - HALF, self.lanes))

    def __call__(self, base: Expr, scores: tuple[Expr, Expr]) -> Expr:
        """Return the exponents of two registers of scores, as `Halves.pack` arranges them.

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
