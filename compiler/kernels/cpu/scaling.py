"""Rescaling of non-negative distances by one dyadic number, in 32-bit lanes where possible.

``min((d * m + half) >> s, limit)`` for an int32 ``d >= 0`` needs 64 bits. With ``s >= 32`` it is
the high half of the product, shifted by ``s - 32``; a smaller shift becomes 32 by moving ``d`` up
first, which loses nothing when `d` is limited to what still fits: there the result is at `limit`
anyway, because `rescale_constants` normalizes the multiplier to 31 bits.
"""

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.arith import multiply_add, wide_factor, wide_splat
from vitq.compiler.kernels.cpu.builder import Buffer, Expr, bind, cast, lanes_of, load, splat
from vitq.compiler.kernels.tensor import TensorType
from vitq.numerics.arrays import IntArray

INT32_MAX = 2**31 - 1
CONSTANTS = TensorType((6,), "int64")


def rescale_constants(multiplier: int, shift: int, limit: int) -> IntArray:
    """(multiplier, addend, largest d, shift up, shift down, limit) for `Rescale`.

    Args:
        multiplier: non-negative, within int32.
        shift: 1 to 46.
        limit: of the result, below 2**28.

    Returns:
        The constants as int64.
    """
    while 0 <= multiplier < 1 << 30 and shift < 32:  # the same factor, more bits
        multiplier, shift = 2 * multiplier, shift + 1
    shift = max(shift, 2)  # a factor of 2**29 or more: everything but 0 is beyond the limit
    up = max(32 - shift, 0)
    largest = INT32_MAX >> up
    half = 1 << (shift - 1)
    return np.array([multiplier, half << up, largest, up, max(shift - 32, 0), limit], np.int64)


class Rescale:
    """Emits ``min((d * m + half) >> s, limit)`` with constants read from a buffer."""

    def __init__(self, constants: Buffer, split: bool) -> None:
        """Read the constants.

        Args:
            constants: int64 (6,) from `rescale_constants`.
            split: see `compiler.kernels.cpu.arith`.
        """
        self.multiplier = load(constants, 0)
        self.addend = load(constants, 1)
        small = [bind(cast(load(constants, i), "int32")) for i in range(2, 6)]
        self.largest, self.up, self.down, self.limit = small
        self.split = split

    def __call__(self, distance: Expr, limited: bool = True) -> Expr:
        """Rescale int32 lanes; without `limited` results stay below 2**31 only."""
        lanes = lanes_of(distance)
        moved = bind(tirx.min(distance, splat(self.largest, lanes)) << splat(self.up, lanes))
        product = multiply_add(
            moved,
            wide_factor(self.multiplier, lanes, self.split),
            wide_splat(self.addend, lanes, self.split),
            self.split,
        )
        high = bind(product.high() >> splat(self.down, lanes))
        return high if not limited else bind(tirx.min(high, splat(self.limit, lanes)))
