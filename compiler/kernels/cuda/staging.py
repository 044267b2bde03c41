"""What an epilogue reads, brought to shared memory while the products are made.

    behind the main loop's stages   constants of the block's columns | a GELU's table | a residual
                                    for which no stage comes free
    before inputs are awaited       constants and table begin to arrive
    with the first turn that has    the residual does, in the stage that the turn would have loaded:
    nothing more to load            each thread fetches the codes that it adds itself, so that no
                                    barrier is needed

An epilogue that loads from global memory would wait for some 600 cycles several times, while the
tensor cores have nothing to do.
"""

from collections.abc import Iterator

from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import unpacked
from vitq.compiler.kernels.cuda.emit import (
    WARP,
    WORD_BYTES,
    Buffer,
    Expr,
    Shared,
    address,
    each_item,
    flat,
    get_many,
    index,
    when,
)
from vitq.compiler.kernels.cuda.loading import GROUP
from vitq.compiler.kernels.cuda.mainloop import FRAGMENT_N, Place
from vitq.compiler.kernels.cuda.tile import CHANNEL_BYTES, FRAGMENT_M, PIECE, Needs, Tile

RUN = 8
"""Neighbouring columns of a thread."""
CHANNEL_WORDS = CHANNEL_BYTES // WORD_BYTES
LANES = GROUP // RUN
"""Threads that share a row of 32 columns."""


class Runs:
    """Where a thread's results lie: runs of 8 neighbouring columns, in groups of 32.

    Args:
        tile: the schedule.
        place: of the thread.
        first: row and column of the block.
        shape: of the result.
    """

    def __init__(
        self, tile: Tile, place: Place, first: tuple[Expr, Expr], shape: tuple[int, ...]
    ) -> None:
        self.tile, self.place, self.first = tile, place, first
        self.rows, self.columns = shape
        self.groups = range(tile.warp_n // GROUP)

    @property
    def are_here(self) -> Expr:
        """Whether the thread has results: groups of warps behind the first have none."""
        return True if self.tile.split_k == 1 else self.place.group < 1

    def column(self, group: int) -> Expr:
        """First column of the runs in one group."""
        own = self.place.column + group * GROUP + self.place.lane % LANES * RUN
        return index(self.first[1] + own)

    def has_column(self, column: Expr) -> Expr:
        """Whether that is a column of the result."""
        return True if self.columns % self.tile.block_n == 0 else column < self.columns

    def of_group(self, group: int) -> Iterator[tuple[int, int, Expr]]:
        """For each of its rows the run's number, its first accumulator, and the row."""
        fragments = self.tile.warp_n // FRAGMENT_N
        rows = self.tile.warp_m // FRAGMENT_M
        for i in range(rows):
            for half in range(2):
                row = self.place.row + i * self.tile.fragment_rows + half * 8
                number = (group * rows + i) * 2 + half
                accumulator = 4 * (i * fragments + group * 4) + half * 2
                yield number, accumulator, index(self.first[0] + row + self.place.lane // LANES)

    def has_row(self, row: Expr) -> Expr:
        """Whether that is a row of the result."""
        return True if self.rows % self.tile.block_m == 0 else row < self.rows


class Staging:
    """Copies, and gives what has been copied.

    Args:
        tile: the schedule.
        needs: what is read beside constants.
        shared: the block's memory.
        thread: of the block.
        runs: the thread's results.
        free: byte offset of the stage that the main loop frees first.
    """

    def __init__(
        self, tile: Tile, needs: Needs, shared: Shared, thread: Expr, runs: Runs, free: int
    ) -> None:
        self.tile, self.needs, self.shared, self.thread = tile, needs, shared, thread
        self.runs, self.words = runs, shared.view("int32")
        self.channels = tile.loop_bytes
        self.table = self.channels + tile.block_n * CHANNEL_BYTES
        self.residual = free if tile.reuses_stage(needs) else self.table + needs.table

    def fetch_channels(self, channels: Buffer) -> None:
        """Begin to copy the constants of the block's columns; the last column's are repeated.

        Those that four threads read together become neighbours.
        """
        data = flat(channels)
        for item in each_item(self.tile.block_n, self.thread, self.tile.threads):
            column = index(tirx.min(self.runs.first[1] + item, self.runs.columns - 1))
            place = item // GROUP * GROUP + item % RUN * LANES + item % GROUP // RUN
            to = index(place * CHANNEL_BYTES + self.channels)
            self._copy(to, address(data, column * CHANNEL_WORDS))

    def fetch_table(self, table: Buffer) -> None:
        """Begin to copy a table."""
        data = flat(table)
        for item in each_item(self.needs.table // PIECE, self.thread, self.tile.threads):
            from_ = address(data, item * (PIECE // WORD_BYTES))
            self._copy(index(item * PIECE + self.table), from_)

    def fetch_residual(self, residual: Buffer) -> None:
        """Begin to copy the codes that this thread adds, of a tensor as large as the result."""
        runs, data = self.runs, flat(residual)
        with when(runs.are_here):
            for group in runs.groups:
                column = runs.column(group)
                with when(runs.has_column(column)):
                    for number, _, row in runs.of_group(group):
                        row = index(tirx.min(row, runs.rows - 1))
                        from_ = address(data, row * runs.columns + column)
                        self._copy(self._run(number), from_)

    def channel(self, group: int, column: int) -> list[Expr]:
        """Return the four words of a column of the thread's run in a group."""
        place = self.runs.place
        at = place.column + group * GROUP + column * LANES + place.lane % LANES
        first = index(at * CHANNEL_WORDS + self.channels // WORD_BYTES)
        words = get_many(self.words, first, CHANNEL_WORDS)
        return [words[i] for i in range(CHANNEL_WORDS)]

    def residuals(self, number: int) -> list[Expr]:
        """Return the int16 codes of a run."""
        words = get_many(self.words, index(self._run(number) // WORD_BYTES), PIECE // WORD_BYTES)
        return [unpacked(words[i // 2], i % 2, "int16") for i in range(RUN)]

    def _run(self, number: int) -> Expr:
        """Byte offset of a run of the residual."""
        threads = WARP * self.tile.warps
        member = self.thread if self.tile.split_k == 1 else self.thread % threads
        return index((member + number * threads) * PIECE + self.residual)

    def _copy(self, to: Expr, source: Expr) -> None:
        intrinsics.copy16(address(self.shared.bytes, to), source)
