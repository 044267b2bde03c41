"""Arranges tables for the kernels that look codes up."""

import numpy as np

from vitq.numerics.arrays import IntArray


def by_pattern(table: IntArray, low: int) -> IntArray:
    """Return a table whose index is the low bits of a code's pattern.

    Args:
        table: (C, n), the first entry for the code `low`.
        low: that code.

    Returns:
        (C, 2**k), n <= 2**k, with zeros where no code leads.
    """
    entries = table.shape[1]
    size = 1 << max(entries - 1, 0).bit_length()
    arranged = np.zeros((len(table), size), table.dtype)
    arranged[:, (np.arange(entries) + low) & (size - 1)] = table
    return arranged
