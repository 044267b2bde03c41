r"""Powers of two by shifts: the core that Shiftmax and ShiftGELU share.

I-ViT (arXiv:2207.01405, Eq. 7 to 10) writes exp(x) as 2**(x log2 e), splits the exponent into an
integer part, which is a shift, and a fraction f, and takes 2**-f as the line 1 - f/2 (off by up
to 6 %, all on one side). Here the fraction goes through a cubic in Q15,

    2**-f ~= 0.99994648 - 0.69137342 f + 0.23097554 f**2 - 0.03960212 f**3,  0 <= f < 1

(minimax, error 5.4e-5), evaluated by Horner's rule with ``mulhrs(a, b) = (a * b + 2**14) >> 15``.
All values are signed 16-bit: ``mulhrs`` is one instruction on SSSE3 to AVX-512 (``vpmulhrsw``) and
NEON (``sqrdmulh``), and plain 32-bit arithmetic on CUDA.

The result is scaled by `ONE` = 255 * 128 = 32640 instead of 32768, so that ``2**-0`` becomes the
8-bit code 255 by a rounding shift of 7 and never 256.
"""

import numpy as np

from vitq.numerics.arrays import IntArray

ONE = 255 * 128
FRACTION_BITS = 15
# The cubic's coefficients times ONE; the constant term is set to ONE so that 2**-0 is exact.
COEFFICIENTS = (ONE, -22566, 7539, -1293)
MAX_ERROR = 1.6e-4


def mulhrs(a: IntArray | int, b: IntArray | int) -> IntArray:
    """Compute ``(a * b + 2**14) >> 15``, HALF_UP: the product of two Q15 numbers.

    Args:
        a: integers in int16's range.
        b: integers in int16's range, broadcastable.

    Returns:
        int64.
    """
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + (1 << 14)) >> 15


def exp2_fraction(fraction: IntArray) -> IntArray:
    """``round(ONE * 2**(-fraction / 2**15))``, within `MAX_ERROR` * ONE.

    Args:
        fraction: any shape, 0 <= fraction < 2**15.

    Returns:
        int64 in (ONE / 2 - 16, ONE].
    """
    c0, c1, c2, c3 = COEFFICIENTS
    y = c2 + mulhrs(c3, fraction)
    y = c1 + mulhrs(y, fraction)
    return c0 + mulhrs(y, fraction)
