"""Named roundings. Every place that rounds says which of these it uses."""

from enum import StrEnum

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray


class Rounding(StrEnum):
    """How a value between two integers becomes one of them.

    HALF_EVEN is what ONNX QuantizeLinear and ``torch.round`` do: it is used wherever a float
    becomes an integer, which happens on the host only. HALF_UP (ties towards plus infinity) is
    what every integer shift of this project does: ``(x + half) >> shift`` is one addition and
    one arithmetic shift on AVX2, AVX-512, NEON (``srshl``) and CUDA (the addition rides in
    ``IMAD.WIDE``), while HALF_AWAY and HALF_EVEN need the sign or the low bit first.
    """

    HALF_EVEN = "half_even"
    HALF_AWAY = "half_away"
    HALF_UP = "half_up"
    FLOOR = "floor"


def round_float(x: FloatArray, rounding: Rounding = Rounding.HALF_EVEN) -> IntArray:
    """Round floats to int64.

    Args:
        x: any shape, float64; every value must fit into int64.
        rounding: the rule for ties, or FLOOR.

    Returns:
        Array of the same shape, int64.
    """
    x = np.asarray(x, np.float64)
    if rounding is Rounding.HALF_EVEN:
        rounded = np.rint(x)
    elif rounding is Rounding.HALF_AWAY:
        rounded = np.copysign(np.floor(np.abs(x) + 0.5), x)
    elif rounding is Rounding.HALF_UP:
        rounded = np.floor(x + 0.5)
    else:
        rounded = np.floor(x)
    return rounded.astype(np.int64)


def shift_right(x: IntArray, shift: IntArray | int, rounding: Rounding) -> IntArray:
    """Divide integers by ``2**shift`` with a named rounding, in integers only.

    Args:
        x: any shape, int64, with ``|x| < 2**62``.
        shift: 0 <= shift <= 62, scalar or broadcastable to ``x``.
        rounding: HALF_UP or FLOOR, the two that the kernels use, or one of the others.

    Returns:
        Array of the broadcast shape, int64.
    """
    x = np.asarray(x, np.int64)
    shift = np.asarray(shift, np.int64)
    if rounding is Rounding.FLOOR:
        return x >> shift
    half = (np.int64(1) << shift) >> np.int64(1)
    up = (x + half) >> shift
    if rounding is Rounding.HALF_UP:
        return up
    tie = (shift > 0) & ((up << shift) - x == half)
    if rounding is Rounding.HALF_AWAY:
        return up - (tie & (x < 0))
    return up - (tie & (up & 1 == 1))
