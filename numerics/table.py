"""Table look-up: any function of one code, exact; one table for all, or one for each channel.

    y = table[c, x - low]

A float input's normalization is such a function of its pixels, with 256 entries for each channel;
SiLU, sigmoid and their like are others (`numerics.pointwise`), of 8-bit codes or, with 4096
entries, of 12-bit ones.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.qparams import QuantParams, quantize

LEVELS = 256
"""Codes of 8 bits."""


class TableParams(NamedTuple):
    """How a table is read, in the order in which a kernel reads it (int64 each).

    Attributes:
        axis: of the input, along which the tables' channels lie; of no meaning for one table.
        low: the code of the first entry.
    """

    axis: int
    low: int


PIXELS = TableParams(1, 0)
"""Of (B, C, H, W) pixels."""


def pixel_table(real: FloatArray, out: QuantParams) -> tuple[IntArray, QuantParams]:
    """Codes of known real values, from 0 on.

    Args:
        real: (C, 256) float32, what each code of each channel means.
        out: the output's parameters, per tensor, at most 256 codes.

    Returns:
        The table (C, 256) uint8, and the parameters of its codes: scale as before, zero point moved
        by ``-qmin``.

    Raises:
        VitqError: for wider codes.
    """
    if out.qmax - out.qmin >= LEVELS:
        raise VitqError(f"codes from {out.qmin} to {out.qmax} do not fit into 8 bits")
    codes = quantize(real, out).astype(np.int64) - out.qmin
    moved = QuantParams(out.scale, out.zero_point - out.qmin, 0, LEVELS - 1)
    return codes.astype(np.uint8), moved


def int_lut(x: IntArray, table: IntArray, p: TableParams = PIXELS) -> IntArray:
    """Look up each code, perhaps each channel's in a table of its own.

    Args:
        x: any shape, codes from ``p.low`` on.
        table: (C, n) or (1, n) codes.
        p: how it is read.

    Returns:
        The shape of `x` and the type of `table`.

    Raises:
        RangeError: for a code without an entry.
    """
    index = x.astype(np.int64) - p.low
    if index.size and (index.min() < 0 or index.max() >= table.shape[1]):
        raise RangeError(f"a code is outside of its table of {table.shape[1]} from {p.low} on")
    if len(table) == 1:
        return table[0, index]
    channels = [1] * x.ndim
    channels[p.axis] = -1
    return table[np.arange(len(table)).reshape(channels), index]
