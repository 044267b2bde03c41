r"""Twin attention weights: one quantizer with a fine step near 0 and a coarse one for large ones.

PTQ4ViT (arXiv:2111.12293, Sec. 3.2) splits the b-bit codes of what Softmax gives in halves,

    R1 = [0, 2**(b-1) s1):       fine   = clamp(round(x / s1), 0, 2**(b-1) - 1) s1
    R2 = [2**(b-1) s1, 1]:       coarse = clamp(round(x / s2), 0, 2**(b-1) - 1) s2
    s2 = 1 / 2**(b-1) = 2**m s1

so that one shift by m aligns the ranges. Here x is the 8-bit Shiftmax weight w in [0, 255]
(`numerics.shiftmax`), whose unit is 1/255 of the row's largest one. The coarse step, a
2**(b-1)-th part of 256, is ``2**c`` with c = 9 - b, and the fine one is ``2**f``, m = c - f:

    w' = min((w + half) >> f, 2**(b-1) - 1) << f        for w < 2**(b-1+f)       half of each shift,
    w' = min(((w + half) >> c) << c, 255)               otherwise                0 for none

All of it are additions, masks and minima of 8-bit weights: ``(x >> n) << n`` is a mask. The
product with V has codes in steps of one (the shifts by f and c are made before it, not behind two
products), so that it stays one product of bytes, and the row is divided by the sum of the w'.

f = c = 0 is one range: 256 codes of step 1, w' = w. That is what 8 bits are: R1 = [0, 128) of a
fine step that divides a whole number is exact, and so is R2 at that step. Twins have 2 to 7 bits.

Error: half a step of the range that w is in, ``2**f / 2`` or ``2**c / 2``; just below R2, where the
paper clamps to R1's last code, up to a whole fine step, and at most ``2**f - 1``; none at 0 and at
the row's maximum.

Deviations from the paper: weights relative to the row's largest one and not to the row's sum (the
normalization waits until after V, so that the largest weight is always the end of R2); rounding is
half up on a weight that was rounded to 1/255 before; the codes of R2 count from 1 to 2**(b-1), for
its 0 would be R1's a second time, and the last one, 256, is 255, exactly the maximum; R1 reaches at
least half a coarse step, below which R2 has no code (``b - 1 + f >= c - 1``; with less, larger
weights would get smaller codes).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

WEIGHT_BITS = 8
WEIGHT_MAX = 2**WEIGHT_BITS - 1
TWIN_BITS = range(2, WEIGHT_BITS)


class TwinCodes(NamedTuple):
    """The two ranges of attention weights, in the order in which `CodeParams` has them.

    Attributes:
        fine: f, a fine step is ``2**f``.
        coarse: c, a coarse one is ``2**c``.
    """

    fine: int
    coarse: int

    @property
    def bits(self) -> int:
        """Width of the codes, b."""
        return WEIGHT_BITS + 1 - self.coarse if self.coarse else WEIGHT_BITS

    @property
    def border(self) -> int:
        """The smallest weight of the coarse range."""
        return 1 << (self.bits - 1 + self.fine) if self.coarse else WEIGHT_MAX + 1


ONE_RANGE = TwinCodes(0, 0)


def twin_choices(bits: int) -> tuple[TwinCodes, ...]:
    """All twins of a width, the finest first.

    Args:
        bits: of the codes.

    Returns:
        Those whose fine range reaches half a coarse step.

    Raises:
        VitqError: for a width that has none.
    """
    if bits not in TWIN_BITS:
        first, last = TWIN_BITS[0], TWIN_BITS[-1]
        raise VitqError(f"twin attention weights of {bits} bits: choose {first} to {last}")
    coarse = WEIGHT_BITS + 1 - bits
    return tuple(TwinCodes(f, coarse) for f in range(max(coarse - bits, 0), coarse))


def check_twin_codes(twin: TwinCodes) -> None:
    """Refuse ranges that are none of `twin_choices`, nor one range.

    Raises:
        VitqError: with those that are.
    """
    if twin == ONE_RANGE:
        return
    choices = {c: twin_choices(WEIGHT_BITS + 1 - c) for c in range(2, WEIGHT_BITS)}
    if twin not in choices.get(twin.coarse, ()):
        found = [str(tuple(t)) for row in choices.values() for t in row]
        raise VitqError(f"twin attention weights (f, c) = {tuple(twin)}: choose {', '.join(found)}")


def describe_twin(twin: TwinCodes) -> str:
    """Return what a person reads of ranges: ``twin, steps of 4 and 32``."""
    return f"twin, steps of {1 << twin.fine} and {1 << twin.coarse}"


def twin_weights(weights: IntArray, twin: TwinCodes) -> IntArray:
    """Weights as two ranges leave them (the module docstring's w').

    Args:
        weights: any shape, 0 to 255.
        twin: the ranges.

    Returns:
        int64 in [0, 255], the shape of `weights`.
    """
    w = weights.astype(np.int64)
    last = (1 << (twin.bits - 1)) - 1 if twin.coarse else WEIGHT_MAX
    fine = np.minimum(_rounded(w, twin.fine), last << twin.fine)
    coarse = np.minimum(_rounded(w, twin.coarse), WEIGHT_MAX)
    return np.where(w < twin.border, fine, coarse)


def _rounded(w: IntArray, bits: int) -> IntArray:
    """To multiples of ``2**bits``, half up."""
    return (w + ((1 << bits) >> 1)) & -(1 << bits)
