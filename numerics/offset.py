r"""Constants that are added to attention scores before the row's maximum: biases and masks.

A score is an integer x of scale ``sigma`` (an int32 accumulator, or codes). A constant c, a bias
for each head or a mask for each window, becomes integers of the same step:

    c' = max(round(c / sigma), -OFFSET_LIMIT)          round half to even, in float64
    y  = x + c'                                        int32, scale sigma, x's zero point

Error: half a score step for each constant, far below the step of an 8-bit weight.

Masks. Real values below `MASKED` (-inf, -1e9, the smallest float32) are `MASKED` from the start
(`masked`), and integers end at -OFFSET_LIMIT. A masked score has the code 0 exactly, for any input,
where the scores that are not masked stay within +-`REACH`, biases included: the row's maximum is
then at least `REACH` steps above it, also where a bias has brought its constant up to -`HIDDEN`
(``3 REACH - 2 REACH``), and ``sigma REACH`` is at least `OCTAVES` octaves, beyond which the weights
of both families are 0 (`offset_codes` refuses smaller steps). A constant that no limit cuts,
Swin's -100, is exact in steps and hides as much as it does in float. Rows in which everything is
masked are those of the scores alone, not NaN.

Ranges: three constants may follow one another, ``3 OFFSET_LIMIT + 2**22 < SCORE_LIMIT``; what a
network's own scores and constants reach is proven by their records.
"""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError, VitqError

MASKED = np.float32(-(2.0**15))
"""Real value that hides a score; below it nothing is distinguished."""
OFFSET_LIMIT = 2**28
REACH = OFFSET_LIMIT // 4
HIDDEN = 3 * REACH
OCTAVES = 16
"""Below a row's maximum at which every weight is 0: of 8-bit codes ten, of 15-bit ones sixteen."""


def masked(value: FloatArray) -> FloatArray:
    """Bring a constant's masks to `MASKED`.

    Args:
        value: any shape, finite or -inf.

    Returns:
        float32, finite.

    Raises:
        VitqError: for NaN and +inf.
    """
    if np.isnan(value).any() or np.isposinf(value).any():
        raise VitqError("a constant added to attention scores holds NaN or +Inf")
    return np.maximum(value.astype(np.float32), MASKED)


def offset_codes(value: FloatArray, scale: float) -> IntArray:
    """Return a constant in steps of the scores.

    Args:
        value: any shape, real.
        scale: real value of one score step, > 0.

    Returns:
        int64 within +-OFFSET_LIMIT, the shape of `value`.

    Raises:
        RangeError: if a bias leaves that range, or the scores' step is too small for masks.
    """
    codes = np.rint(value.astype(np.float64) / np.float64(scale))
    if codes.size and codes.max() > OFFSET_LIMIT:
        raise RangeError(f"a bias of {float(value.max()):.3g} at a score step of {scale:.3g}")
    cut = codes < -OFFSET_LIMIT
    if cut.any() and scale * REACH < OCTAVES * np.log(2):
        raise RangeError(f"a score step of {scale:.3g} is too small for a mask")
    return np.where(cut, -OFFSET_LIMIT, codes).astype(np.int64)


def int_offset(x: IntArray, offset: IntArray) -> IntArray:
    """Add a constant to scores.

    Args:
        x: (..., M, N) integer scores.
        offset: broadcastable to `x`, from `offset_codes`.

    Returns:
        int64, the shape of `x`.
    """
    return x.astype(np.int64) + offset
