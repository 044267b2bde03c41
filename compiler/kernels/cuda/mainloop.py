"""The product's main loop: a pipeline of asynchronous copies and ``mma`` or ``wgmma``.

    the weights of the first loads are on their way; then the kernels before this one are awaited
    all first loads are on their way
    for each turn:  wait for the oldest; barrier
        mma     start the load that is `Tile.ahead` turns ahead; multiply what has arrived
        wgmma   begin to multiply what has arrived; start that load; wait for the products, or
                with `Tile.flight` for those of the turn before

One barrier a turn is enough: what a load overwrites was multiplied in the turn before (with
`Tile.flight` in the one before that), and every thread has passed that when it passes the barrier.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.emit import (
    WARP,
    Block,
    Buffer,
    Expr,
    Shared,
    address,
    ceil_div,
    const,
    index,
    put,
    registers,
    serial,
    when,
)
from vitq.compiler.kernels.cuda.loading import GROUP, Layout, Loader, Source, grouped_row
from vitq.compiler.kernels.cuda.tile import FRAGMENT_M, WARP_GROUP, Tile

STEP = 32
"""Bytes of K of one matrix instruction."""
FRAGMENT_N = 8


@dataclass(frozen=True)
class Place:
    """Where a thread's part of the result is.

    Attributes:
        row: of its warp in the block's tile.
        column: of its warp in the block's tile.
        lane: within the warp.
        group: of warps, over K.
    """

    row: Expr
    column: Expr
    lane: Expr
    group: Expr


class MainLoop:
    """One block's product."""

    def __init__(
        self,
        tile: Tile,
        shared: Shared,
        block: Block,
        sources: tuple[Source, Source],
        first: tuple[Expr, Expr],
        inner: int,
    ) -> None:
        """Fix sizes and places.

        Args:
            tile: the schedule.
            shared: memory for the stages.
            block: where the thread is.
            sources: of both operands, (M, K) and (N, K).
            first: row of each.
            inner: padded bytes of K.
        """
        self.tile, self.shared, self.thread, self.first = tile, shared, block.thread, first
        self.a = Loader(sources[0], Layout(tile.chunk, False), tile.block_m, first[0], tile.split_k)
        grouped = not tile.wgmma
        layout = Layout(tile.chunk, grouped)
        self.b = Loader(sources[1], layout, tile.block_n, first[1], tile.split_k, not grouped)
        self.chunks = ceil_div(inner, tile.chunk)
        self.turns = ceil_div(self.chunks, tile.split_k)
        warp, lane = block.warp, block.lane
        member, together = index(warp % tile.warps), WARP_GROUP if tile.wgmma else 1
        unit = index(member // together)
        self.rows = index(unit // tile.warps_n * (tile.warp_m * together))
        self.place = Place(
            index(self.rows + member % together * FRAGMENT_M),
            index(unit % tile.warps_n * tile.warp_n),
            lane,
            index(warp // tile.warps),
        )
        self.fragments = tile.warp_m // FRAGMENT_M, tile.warp_n // FRAGMENT_N

    @property
    def free(self) -> int:
        """Byte offset of the stage that no load will take when all are on their way."""
        return self.turns % self.tile.stages * self.tile.stage_bytes

    def emit(self, signs: str, loaded: Callable[[], None]) -> Buffer:
        """Return the loop.

        Args:
            signs: types of both operands.
            loaded: emits copies that are started when all loads are on their way, perhaps to the
                stage that is `free`; ``intrinsics.wait(0)`` awaits them.

        Returns:
            The accumulators: 4 registers for each fragment, rows first; the groups' sums are in the
            first group.
        """
        tile, (rows, columns) = self.tile, self.fragments
        acc = registers(4 * rows * columns)
        for i in range(4 * rows * columns):
            put(acc, i, const(0))
        for turn in range(min(tile.ahead, self.turns)):
            self._load_weights(turn, turn)
        intrinsics.await_inputs()
        for turn in range(tile.ahead):
            if turn < self.turns:
                self._load_inputs(turn, turn)
            elif turn == self.turns:
                loaded()
            intrinsics.commit()
        with serial(self.turns) as turn:
            intrinsics.wait(tile.ahead - 1)
            if tile.wgmma:
                intrinsics.fence_async()
            intrinsics.barrier()
            base = index(turn % tile.stages * tile.stage_bytes)
            if tile.wgmma:
                with when(self._has_chunk(turn)):
                    self._begin(acc, base, signs)
                self._load_ahead(turn, loaded)
                with when(self._has_chunk(turn)):
                    self._finish(acc, rows if tile.flight else 0)
            else:
                self._load_ahead(turn, loaded)
                with when(self._has_chunk(turn)):
                    self._multiply(acc, base, signs)
        if tile.flight:
            self._finish(acc, 0)
        if tile.split_k > 1:
            self._add_up(acc)
        return acc

    def _has_chunk(self, turn: Expr) -> Expr:
        """Whether a group has something to multiply in a turn."""
        always = self.chunks % self.tile.split_k == 0
        return True if always else turn * self.tile.split_k + self.place.group < self.chunks

    def _load_ahead(self, turn: Expr, loaded: Callable[[], None]) -> None:
        """Start the load for a later turn, or what comes behind the last."""
        tile, ahead = self.tile, index(turn + self.tile.ahead)
        with when(ahead < self.turns):
            self._load_inputs(ahead, ahead % tile.stages)
            self._load_weights(ahead, ahead % tile.stages)
        if self.turns >= tile.ahead:
            with when(ahead.equal(self.turns)):
                loaded()
        intrinsics.commit()

    def _load_inputs(self, turn: Expr, stage: Expr) -> None:
        base = stage * self.tile.stage_bytes
        self.a.emit(self.shared, base, turn, self.thread, self.tile.threads)

    def _load_weights(self, turn: Expr, stage: Expr) -> None:
        base = stage * self.tile.stage_bytes + self.a.size
        self.b.emit(self.shared, base, turn, self.thread, self.tile.threads)

    def _multiply(self, acc: Buffer, base: Expr, signs: str) -> None:
        """One stage's products."""
        tile, (rows, columns), place = self.tile, self.fragments, self.place
        lane, group = place.lane, place.group
        a_base = index(base + group * (tile.block_m * tile.chunk))
        b_base = index(base + self.a.size + group * (tile.block_n * tile.chunk))
        a_row = index(place.row + lane % 16)
        b_row = index(place.column + grouped_row(lane // 16, lane % 8))
        a, b = registers(4 * rows), registers(2 * columns)
        for step in range(tile.chunk // STEP):
            for i in range(rows):
                piece = step * 2 + lane // 16
                at = a_base + self.a.layout.offset(a_row + i * FRAGMENT_M, piece)
                intrinsics.ldmatrix(address(a, 4 * i), address(self.shared.bytes, at))
            for j in range(0, columns, 2):
                piece = step * 2 + lane // 8 % 2
                row = b_row + j // 4 * GROUP + j % 4 * 2
                at = b_base + self.b.layout.offset(row, piece)
                intrinsics.ldmatrix(address(b, 2 * j), address(self.shared.bytes, at))
            for i in range(rows):
                for j in range(columns):
                    intrinsics.mma(
                        address(acc, 4 * (i * columns + j)),
                        [a[4 * i + r] for r in range(4)],
                        [b[2 * j + r] for r in range(2)],
                        signs,
                    )

    def _begin(self, acc: Buffer, base: Expr, signs: str) -> None:
        """Begin one stage's products by groups of four warps."""
        tile, (rows, columns), place = self.tile, self.fragments, self.place
        a_base = base + (place.group * tile.block_m + self.rows) * tile.chunk
        b_base = base + self.a.size + (place.group * tile.block_n + place.column) * tile.chunk
        b = address(self.shared.bytes, index(b_base))
        for i in range(rows):
            a = address(self.shared.bytes, index(a_base + i * tile.fragment_rows * tile.chunk))
            to = address(acc, 4 * i * columns)
            intrinsics.wgmma_issue(to, a, b, signs, tile.warp_n, tile.chunk)

    def _finish(self, acc: Buffer, pending: int) -> None:
        """Wait for all products but the latest `pending` fragments' of rows."""
        rows, columns = self.fragments
        if pending:
            intrinsics.wgmma_let(pending)
        else:
            intrinsics.wgmma_wait(address(acc, 0), 4 * rows * columns)

    def _add_up(self, acc: Buffer) -> None:
        """Sum the groups' accumulators through shared memory, into the first group's."""
        tile, (rows, columns) = self.tile, self.fragments
        count, threads = 4 * rows * columns, WARP * tile.warps
        words = self.shared.view("int32")
        member = index(self.thread % threads)
        intrinsics.wait(0)
        intrinsics.barrier()
        with when(self.place.group > 0):
            base = index((self.place.group - 1) * (count * threads) + member)
            for i in range(count):
                put(words, base + i * threads, acc[i])
        intrinsics.barrier()
        with when(self.place.group < 1):
            for i in range(count):
                total = acc[i]
                for group in range(tile.split_k - 1):
                    total = total + words[member + (group * count + i) * threads]
                put(acc, i, total)
