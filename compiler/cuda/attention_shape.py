"""Static sizes of one attention kernel, and where things lie in shared memory."""

from compiler.cuda.emit import WARP, Expr, ceil_div
from compiler.cuda.kernel import gpu_of
from compiler.cuda.loading import Layout
from compiler.kernels.types import Kernel, Schedule

UNIT = 32
"""Keys of one matrix instruction of the second product."""
FRAGMENT_ROWS = 16
FRAGMENT = 8
SMALLEST_ROW = 32


class Shape:
    """Sizes.

    Attributes:
        chunk: keys that are in shared memory at a time, a multiple of `UNIT`.
        key_bytes: of a row of K there.
        fragments: of 8 channels.
        run: neighbouring channels of a thread.
    """

    def __init__(self, kernel: Kernel, schedule: Schedule) -> None:
        self.batch, self.tokens, _, self.heads, self.width = kernel.inputs[0].shape
        self.row_warps, self.key_warps = schedule["row_warps"], schedule["key_warps"]
        self.key_bytes = SMALLEST_ROW
        while self.key_bytes < self.width:
            self.key_bytes *= 2
        self.fragments = ceil_div(self.width, FRAGMENT)
        tiles = next(t for t in (4, 2, 1) if self.fragments % t == 0)
        self.run = 2 * tiles
        limit = gpu_of(kernel).shared_bytes - self._other_bytes
        most = limit // (self.key_bytes + FRAGMENT * self.fragments) // UNIT * UNIT
        self.chunk = min(ceil_div(self.tokens, UNIT) * UNIT, most)
        self.chunks = ceil_div(self.tokens, self.chunk)

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.row_warps * self.key_warps

    @property
    def rows(self) -> int:
        """Of a block."""
        return FRAGMENT_ROWS * self.row_warps

    @property
    def value_base(self) -> int:
        """Byte offset of V."""
        return self.chunk * self.key_bytes

    @property
    def unit_bytes(self) -> int:
        """Of V for 32 keys."""
        return UNIT * FRAGMENT * self.fragments

    @property
    def exchange_base(self) -> int:
        """Byte offset of what groups of warps tell each other: a maximum and a sum for each row."""
        return max(self.value_base + self.chunk // UNIT * self.unit_bytes, self._sum_bytes)

    @property
    def _sum_bytes(self) -> int:
        """In which groups of warps add their products up."""
        return 4 * (self.key_warps - 1) * self.row_warps * WARP * 4 * self.fragments

    @property
    def _other_bytes(self) -> int:
        return 2 * 4 * self.key_warps * self.rows

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return self.exchange_base + self._other_bytes

    def value_place(self, unit: Expr, channel: Expr, half: Expr) -> Expr:
        """Byte offset of a channel's 16 keys of a half unit.

        Channels are in the order in which fragments read them: those of a thread are neighbours.
        """
        group, rest = channel // (4 * self.run), channel % (4 * self.run)
        row = group * (4 * self.run) + rest % self.run // 2 * FRAGMENT
        row = row + rest // self.run * 2 + rest % 2
        return self.value_base + unit * self.unit_bytes + Layout(UNIT, False).offset(row, half)
