"""Exponential and logarithm by shifts and multiplications, to 25 bits: what tables are made of.

`numerics.exp2` has the 16-bit form that kernels run for each score. A table is made once, at
compile time, so that here precision costs nothing; integers make it the same on every machine,
whatever its libm. With ``r_i = 2**(-2**-i)``, each the square root of the one before,

    2**-f = product of r_i over the bits i of f            f in Q28, 0 <= f < 1
    log2(z): square z; where it passes 2, the next bit is 1 and z is halved      1 <= z <= 2

All values are Q30 (`ONE`), exponents and logarithms Q28. Error: at most 2**-25 of each result
(28 roundings of 2**-31 for constants, and as many for products).
"""

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.int_layernorm import isqrt_normalized
from vitq.numerics.rounding import Rounding, shift_right

VALUE_BITS = 30
ONE = 1 << VALUE_BITS
EXPONENT_BITS = 28
FARTHEST = 62
"""Octaves after which a power is 0."""
MAX_ERROR = 2.0**-25


def _roots() -> tuple[int, ...]:
    """``2**(-2**-i)`` in Q30 for i = 1 ... 28."""
    found = [ONE >> 1]
    for _ in range(EXPONENT_BITS):
        (root,) = isqrt_normalized(np.array([found[-1] << 32]))  # twice the precision, then rounded
        found.append((int(root) + 1) >> 1)
    return tuple(found[1:])


ROOTS = _roots()


def inverse_power(exponent: IntArray) -> IntArray:
    """``2**-t``.

    Args:
        exponent: t in Q28, any shape, >= 0.

    Returns:
        int64 Q30, in [0, ONE].
    """
    value: IntArray = np.full(np.shape(exponent), ONE, np.int64)
    for i, root in enumerate(ROOTS, 1):
        bit = exponent >> (EXPONENT_BITS - i) & 1
        moved = shift_right(value * root, VALUE_BITS, Rounding.HALF_UP)
        value = np.where(bit == 1, moved, value)
    octaves = np.minimum(exponent >> EXPONENT_BITS, FARTHEST)
    return shift_right(value, octaves, Rounding.HALF_UP)


def log2(value: IntArray) -> IntArray:
    """Logarithm of numbers from 1 to 2.

    Args:
        value: Q30, any shape, in [ONE, 2 ONE].

    Returns:
        int64 Q28, in [0, 2**28].
    """
    whole = value >> (VALUE_BITS + 1)
    value = value >> whole
    result: IntArray = whole.astype(np.int64)
    for _ in range(EXPONENT_BITS):
        value = shift_right(value * value, VALUE_BITS, Rounding.HALF_UP)
        bit = (value >= 2 * ONE).astype(np.int64)
        value = value >> bit
        result = 2 * result + bit
    return result
