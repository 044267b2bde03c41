"""What one warp does with 16 rows of a head: scores and their maxima.

Scores of 32 keys are four fragments; a thread has columns 2 t and 2 t + 1 of each. A warp's keys
are every `key_warps`-th unit of 32; the last one of all may have fewer keys than that.
"""

from collections.abc import Callable

from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import order
from vitq.compiler.kernels.cuda.attention_shape import FRAGMENT, FRAGMENT_ROWS, UNIT, Shape
from vitq.compiler.kernels.cuda.emit import (
    WORD_BYTES,
    Block,
    Buffer,
    Expr,
    Shared,
    address,
    ceil_div,
    const,
    flat,
    index,
    keep,
    put,
    registers,
    serial,
    when,
)
from vitq.compiler.kernels.cuda.loading import Layout

LOWEST = -(2**31)
STEP = 32
HALVES = (0, 1)
"""Rows g and g + 8 of a fragment."""
KEYS = "s8s8"
SCORES = 16
"""Registers of a unit."""
Work = Callable[[Expr, Expr, Buffer, bool], None]
"""Of a unit's number, its first key, its scores, and whether some of its keys do not exist."""


class Offsets:
    """Constants that are added to a head's scores; columns are a multiple of `UNIT`."""

    def __init__(
        self, shape: Shape, block: Block, constants: tuple[Buffer, Buffer], windows: int
    ) -> None:
        data, which = constants
        self.tokens, self.columns = shape.tokens, ceil_div(shape.tokens, UNIT) * UNIT
        place = index(block.z % windows * shape.heads + block.y)
        self.data = flat(data)
        self.base = index(flat(which)[place] * (self.tokens * self.columns))

    def __call__(self, row: Expr, column: Expr) -> Expr:
        """Read one; rows beyond the last are that one."""
        return self.data[self.base + tirx.min(row, self.tokens - 1) * self.columns + column]


class Rows:
    """16 rows of a warp."""

    def __init__(
        self,
        shape: Shape,
        block: Block,
        shared: Shared,
        query: Callable[[Expr, int], Expr],
        q_zero: Expr | None,
        added: Offsets | None = None,
    ) -> None:
        """Load the rows of q.

        Args:
            shape: sizes.
            block: where the thread is.
            shared: memory with K, V and the exchange area.
            query: four bytes of q at a row and a column.
            q_zero: q's zero point, if it is not 0.
            added: to the scores.
        """
        self.shape, self.block, self.shared, self.q_zero = shape, block, shared, q_zero
        self.added = added
        self.lane, warp = block.lane, block.warp
        self.row_warp, self.key_warp = index(warp % shape.row_warps), index(warp // shape.row_warps)
        self.row = index(block.x * shape.rows + self.row_warp * FRAGMENT_ROWS + self.lane // 4)
        self.steps = ceil_div(shape.width, STEP)
        self.q = registers(4 * self.steps)
        for r in range(4 * self.steps):
            column = r // 4 * STEP + r % 4 // 2 * 16
            at = self.lane % 4 * 4 + column
            word = query(self.row + r % 2 * 8, tirx.min(at, shape.width - 4))
            inside = column + 16 <= shape.width
            put(self.q, r, word if inside else order(at < shape.width, word, const(0)))
        self.held: list[Buffer] = []
        self.maximum = registers(2)
        for half in HALVES:
            put(self.maximum, half, const(LOWEST))

    @property
    def are_alone(self) -> bool:
        """Whether the warp needs no other one once all keys and values are there."""
        return self.shape.chunks == 1 and self.shape.key_warps == 1

    @property
    def exist(self) -> Expr:
        """Whether any of the rows does, where the last block of a head has some warps too many.

        One alone is not worth the branch, behind which the compiler takes more registers.
        """
        shape = self.shape
        first = self.block.x * shape.rows + self.row_warp * FRAGMENT_ROWS
        too_many = -ceil_div(shape.tokens, FRAGMENT_ROWS) % shape.row_warps
        return first < shape.tokens if too_many > 1 else True

    def _each_unit(self, first: Expr, work: Work) -> None:
        """Compute a chunk's scores, and work on them, unit by unit.

        The last unit, if it has fewer keys, is treated apart, so that the others need no mask.
        """
        shape = self.shape
        with serial(shape.turns) as turn:
            unit = index(turn * shape.key_warps + self.key_warp)
            key = index(first + unit * UNIT)
            with when(self._exists(unit)):
                with when(key + UNIT <= shape.tokens):
                    work(unit, key, self._scores(unit, key), False)
                if shape.tokens % UNIT:
                    with when(tirx.And(key < shape.tokens, key + UNIT > shape.tokens)):
                        work(unit, key, self._scores(unit, key), True)

    def _exists(self, unit: Expr) -> Expr:
        """Whether a unit is one of the chunk's."""
        units = self.shape.chunk // UNIT
        return True if self.shape.turns * self.shape.key_warps == units else unit < units

    def _each_held(self, work: Work) -> None:
        """Work on the scores of all units, which stay in registers."""
        shape = self.shape
        for turn, acc in enumerate(self.held):
            unit = index(self.key_warp + turn * shape.key_warps)
            last = (turn + 1) * shape.key_warps * UNIT > shape.tokens
            with when(self._exists(unit) if last else True):
                work(unit, index(unit * UNIT), acc, last)

    def each(self, first: Expr, work: Work) -> None:
        """Work on the scores of a chunk: those that are held, or computed again."""
        if self.held:
            self._each_held(work)
        else:
            self._each_unit(first, work)

    def _scores(self, unit: Expr, key: Expr) -> Buffer:
        """16 registers: four fragments of scores of 32 keys."""
        acc = self._zeros()
        self._add_scores(acc, unit, key)
        return acc

    def _add_scores(self, acc: Buffer, unit: Expr, key: Expr) -> None:
        """Add the products of this warp's rows and a unit's keys, and constants, to zeros."""
        zero = None
        if self.q_zero is not None:
            zero = keep((self.q_zero & const(255)) * const(0x01010101))
        layout = Layout(self.shape.row_bytes, False)
        row = index(unit * UNIT + self.lane // 16 * FRAGMENT + self.lane % 8)
        for step in range(self.steps):
            keys = registers(8)
            for pair in range(2):
                at = layout.offset(row + pair * 16, step * 2 + self.lane // 8 % 2)
                intrinsics.ldmatrix(address(keys, 4 * pair), address(self.shared.bytes, at))
            q = [self.q[4 * step + r] for r in range(4)]
            for j in range(4):
                intrinsics.mma(address(acc, 4 * j), q, [keys[2 * j], keys[2 * j + 1]], KEYS)
            if zero is not None:
                self._subtract(acc, keys, zero, step)
        if self.added is not None:
            for i in range(SCORES):
                row = self.row + 8 * (i % 4 // 2)
                put(acc, i, acc[i] + self.added(row, self.column(key, i)))

    def _subtract(self, acc: Buffer, keys: Buffer, zero: Expr, step: int) -> None:
        """Q's zero point times the sum of a key's channels, as a product with constant rows."""
        left = self.shape.width - step * STEP
        q = []
        for r in range(4):
            at = self.lane % 4 * 4 + r // 2 * 16
            inside = r // 2 * 16 + 16 <= left
            q.append(zero if inside else order(at < left, zero, const(0)))
        sums = registers(4)
        for j in range(4):
            for i in range(4):
                put(sums, i, const(0))
            intrinsics.mma(address(sums, 0), q, [keys[2 * j], keys[2 * j + 1]], KEYS)
            for i in range(4):
                put(acc, 4 * j + i, acc[4 * j + i] - sums[i])

    def column(self, key: Expr, i: int) -> Expr:
        """Which key register `i` of a unit belongs to."""
        return key + (i // 4 * FRAGMENT + i % 2) + self.lane % 4 * 2

    def find_maximum(self, first: Expr) -> None:
        """Raise `maximum` to the largest score among this warp's keys of a chunk."""

        def work(unit: Expr, key: Expr, acc: Buffer, masked: bool) -> None:
            for i in range(SCORES):
                score = acc[i]
                if masked:
                    score = order(self.column(key, i) < self.shape.tokens, score, const(LOWEST))
                put(self.maximum, i % 4 // 2, tirx.max(self.maximum[i % 4 // 2], score))

        if not self.shape.holds:
            self._each_unit(first, work)
            return
        self.held = [self._zeros() for _ in range(self.shape.turns)]
        self._each_held(lambda unit, key, acc, masked: self._add_scores(acc, unit, key))
        self._each_held(work)

    def _zeros(self) -> Buffer:
        acc = registers(SCORES)
        for i in range(SCORES):
            put(acc, i, const(0))
        return acc

    def share_maximum(self) -> None:
        """Each row's maximum over all keys, for all threads that work on it."""
        for half in HALVES:
            for mask in (1, 2):
                other = keep(intrinsics.shuffle(self.maximum[half], mask))
                put(self.maximum, half, tirx.max(self.maximum[half], other))
        self.exchange(self.maximum, 0, tirx.max)

    def exchange(self, values: Buffer, which: int, combine: Callable[[Expr, Expr], Expr]) -> None:
        """Combine a value for each row over the groups of warps that share its keys."""
        shape, words = self.shape, self.shared.view("int32")
        if shape.key_warps == 1:
            return
        base = shape.exchange_base // WORD_BYTES + which * shape.key_warps * shape.rows
        row = index(self.row_warp * FRAGMENT_ROWS + self.lane // 4)
        with when(self.lane % 4 < 1):
            for half in HALVES:
                put(words, base + self.key_warp * shape.rows + row + 8 * half, values[half])
        intrinsics.barrier()
        for half in HALVES:
            put(values, half, words[base + row + 8 * half])
            for group in range(1, shape.key_warps):
                other = words[base + group * shape.rows + row + 8 * half]
                put(values, half, combine(values[half], other))
