"""Rows that move: windows, shifts, patch merging, padding. No arithmetic, one index table.

    y[b, m] = x[b, rows[m]]        fill where rows[m] is -1

Whatever roll, pad, partition, reverse and permute do to whole tokens, they are one such table, the
same for each of B groups of rows (pictures, or less).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

MISSING = -1


class GatherParams(NamedTuple):
    """The integer of a gather (int64): the code of a row that is not there."""

    fill: int


def gather_rows(x: IntArray, rows: IntArray, p: GatherParams) -> IntArray:
    """Move rows.

    Args:
        x: (B, R, C) codes.
        rows: (M,) of R, or `MISSING`.
        p: the fill.

    Returns:
        (B, M, C), the type of `x`.

    Raises:
        VitqError: for a row that does not exist.
    """
    if rows.min() < MISSING or rows.max() >= x.shape[1]:
        raise VitqError(f"rows {rows.min()} to {rows.max()} of {x.shape[1]}")
    moved = x[:, np.maximum(rows, 0)]
    missing = (rows == MISSING)[:, None]
    return np.where(missing, np.asarray(p.fill, x.dtype), moved)


def row_table(ids: IntArray, channels: int) -> IntArray | None:
    """Read a table from element numbers that layout operators have moved.

    Args:
        ids: any shape, the element of the source at each place, or `MISSING`.
        channels: of a row of the source.

    Returns:
        (M,) the row at each run of `channels` places; None where rows do not move as a whole.
    """
    if ids.size % channels:
        return None
    runs = ids.reshape(-1, channels)
    first = runs[:, :1]
    expected = np.where(first < 0, MISSING, first + np.arange(channels))
    if not np.array_equal(runs, expected) or np.any((first >= 0) & (first % channels != 0)):
        return None
    return np.where(first < 0, MISSING, first // channels).reshape(-1)


def split_table(table: IntArray, rows: int) -> tuple[IntArray, int]:
    """Find the most groups of rows that all move alike, and the table of one.

    Args:
        table: (M,) from `row_table`.
        rows: of the source.

    Returns:
        The table of one group, and how many groups there are.
    """
    most = int(np.gcd(table.size, rows))
    for groups in range(most, 1, -1):
        if most % groups:
            continue
        split = table.reshape(groups, -1)
        start = np.arange(groups)[:, None] * (rows // groups)
        wanted = np.where(split[:1] < 0, MISSING, split[:1] + start)
        if np.all(split[0] < rows // groups) and np.array_equal(split, wanted):
            return split[0], groups
    return table, 1
