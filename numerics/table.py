"""Table look-up: any function of one 8-bit code, exact, one table for each channel.

    y = table[c, x]

A float input's normalization is such a function of its pixels.
"""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams, quantize

LEVELS = 256
"""Codes of 8 bits."""


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


def int_lut(x: IntArray, table: IntArray) -> IntArray:
    """Look up each code of each channel.

    Args:
        x: (B, C, H, W) uint8 codes.
        table: (C, 256) codes.

    Returns:
        The shape of `x` and the type of `table`.
    """
    return table[np.arange(x.shape[1]).reshape(1, -1, 1, 1), x]
