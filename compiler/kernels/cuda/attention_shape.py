"""Static sizes of one attention kernel, and where things lie in shared memory."""

from vitq.compiler.kernels.cuda.emit import WARP, ceil_div
from vitq.compiler.kernels.cuda.kernel import gpu_of
from vitq.compiler.kernels.cuda.tile import WARP_LIMIT
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.numerics.attention import QkvShape

UNIT = 32
"""Keys of one matrix instruction of the second product."""
FRAGMENT_ROWS = 16
FRAGMENT = 8
CHANNELS = 16
"""Of V that one ``ldmatrix`` brings for a unit: two fragments."""
PAIR = 8
"""Accumulators of two fragments."""
HELD_UNITS = 8
"""Units whose scores, 16 registers each, a thread can hold."""
SMALLEST_ROW = 32


class Shape:
    """Sizes.

    Attributes:
        chunk: keys that are in shared memory at a time, a multiple of `UNIT`.
        row_bytes: of a row of K or V there.
        groups: of 16 channels.
    """

    def __init__(self, kernel: Kernel, schedule: Schedule) -> None:
        self.batch, self.tokens, self.heads, self.width = QkvShape.of(kernel.inputs[0].shape)
        self.row_warps, self.key_warps = schedule["row_warps"], schedule["key_warps"]
        while self.row_warps * self.key_warps > WARP_LIMIT:
            self.key_warps //= 2
        self.row_bytes = SMALLEST_ROW
        while self.row_bytes < self.width:
            self.row_bytes *= 2
        self.groups = ceil_div(self.width, CHANNELS)
        limit = gpu_of(kernel).shared_bytes - self._other_bytes
        most = limit // (2 * self.row_bytes) // UNIT * UNIT
        self.chunk = min(ceil_div(self.tokens, UNIT) * UNIT, most)
        self.chunks = ceil_div(self.tokens, self.chunk)
        self.turns = ceil_div(self.chunk // UNIT, self.key_warps)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.row_warps * self.key_warps

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return FRAGMENT_ROWS * self.row_warps

    @property
    def holds(self) -> bool:
        """Whether a warp's scores of all keys stay in its registers."""
        return self.chunks == 1 and self.turns <= HELD_UNITS

    @property
    def value_base(self) -> int:
        """Byte offset of V."""
        return self.chunk * self.row_bytes

    @property
    def exchange_base(self) -> int:
        """Byte offset of what groups of warps tell each other: a maximum and a sum for each row."""
        return max(2 * self.chunk * self.row_bytes, self._sum_bytes)

    @property
    def _sum_bytes(self) -> int:
        """In which groups of warps add their products up."""
        return 4 * (self.key_warps - 1) * self.row_warps * WARP * PAIR * self.groups

    @property
    def _other_bytes(self) -> int:
        return 2 * 4 * self.key_warps * self.rows

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return self.exchange_base + self._other_bytes
