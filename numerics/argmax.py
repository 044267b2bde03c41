"""The class of the largest code: which of C maps, or of C scores, says most.

    y[m] = min { c : x[c, m] = max over k of x[k, m] }

Real values are ``scale * (code - zero_point)`` with one scale > 0 and one zero point for all
classes, so that the largest code is the largest value, and the class is exactly that of the
dequantized scores. Ties go to the lowest class. Nothing is rounded.

Ranges: C <= 256, as a class is a uint8. The kernels find code and class by one maximum: with codes
of 16 bits at most,

    key[c, m] = 256 x[c, m] + (255 - c),    y = 255 - (max over c of key) mod 256

is an int32 (``|key| <= 2**23 + 255``), larger where the code is, and of equal codes where c is
smaller.
"""

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError

MOST_CLASSES = 256
"""Of a uint8."""


def int_argmax(x: IntArray, axis: int = 1) -> IntArray:
    """Find the class of the largest code (module docstring's formula).

    Args:
        x: codes of one scale and zero point, any shape.
        axis: of the classes; it is left out of the result.

    Returns:
        int64, 0 to 255.

    Raises:
        RangeError: more classes than a uint8 can say.
    """
    if x.shape[axis] > MOST_CLASSES:
        raise RangeError(f"an argmax over {x.shape[axis]} classes: at most {MOST_CLASSES}")
    found: IntArray = np.argmax(x, axis=axis).astype(np.int64)
    return found
