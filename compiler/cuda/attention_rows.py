"""What one warp does with 16 rows of a head: scores, maxima, codes, products.

Scores of 32 keys are four fragments; a thread has columns 2 t and 2 t + 1 of each. As the order of
keys does not matter in the second product, its first operand takes the codes where they are: the
four bytes of a register are the keys 2 t, 2 t + 1, 8 + 2 t, 8 + 2 t + 1 (plus 16 in the second
half). V lies in shared memory in that order.
"""

from collections.abc import Callable

from tvm import tirx

from compiler.cuda import intrinsics
from compiler.cuda.arith import Capped, CodeForm, Normalize, code_of, order, packed
from compiler.cuda.attention_shape import FRAGMENT, FRAGMENT_ROWS, UNIT, Shape
from compiler.cuda.emit import (
    BYTES,
    WARP,
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
    put_many,
    registers,
    serial,
    when,
    wide,
)
from compiler.cuda.loading import Layout

LOWEST = -(2**31)
STEP = 32
HALVES = (0, 1)
"""Rows g and g + 8 of a fragment."""
CODES, KEYS = "u8s8", "s8s8"


class Rows:
    """16 rows of a warp."""

    def __init__(
        self,
        shape: Shape,
        block: Block,
        shared: Shared,
        query: Callable[[Expr, int], Expr],
        q_zero: Expr | None,
    ) -> None:
        """Load the rows of q.

        Args:
            shape: sizes.
            block: where the thread is.
            shared: memory with K, V and the exchange area.
            query: four bytes of q at a row and a column.
            q_zero: q's zero point, if it is not 0.
        """
        self.shape, self.block, self.shared, self.q_zero = shape, block, shared, q_zero
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
        self.maximum = registers(2)
        for half in HALVES:
            put(self.maximum, half, const(LOWEST))

    def _each_unit(self, first: Expr, work: Callable[[Expr, Expr, bool], None]) -> None:
        """Work on this warp's units of a chunk, with its unit and first key.

        The last unit, if it has fewer keys, is treated apart, so that the others need no mask.
        """
        shape = self.shape
        units = shape.chunk // UNIT
        turns = ceil_div(units, shape.key_warps)
        with serial(turns) as turn:
            unit = index(turn * shape.key_warps + self.key_warp)
            key = index(first + unit * UNIT)
            exists = True if turns * shape.key_warps == units else unit < units
            with when(exists):
                with when(key + UNIT <= shape.tokens):
                    work(unit, key, False)
                if shape.tokens % UNIT:
                    with when(tirx.And(key < shape.tokens, key + UNIT > shape.tokens)):
                        work(unit, key, True)

    def _scores(self, unit: Expr) -> Buffer:
        """16 registers: four fragments of scores of 32 keys."""
        acc = registers(16)
        for i in range(16):
            put(acc, i, const(0))
        zero = None
        if self.q_zero is not None:
            zero = keep((self.q_zero & const(255)) * const(0x01010101))
        layout = Layout(self.shape.key_bytes, False)
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
        return acc

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

    def _column(self, key: Expr, j: int, i: int) -> Expr:
        """Which key register `i` of fragment `j` belongs to."""
        return key + (8 * j + i % 2) + self.lane % 4 * 2

    def find_maximum(self, first: Expr) -> None:
        """Raise `maximum` to the largest score among this warp's keys of a chunk."""

        def work(unit: Expr, key: Expr, masked: bool) -> None:
            acc = self._scores(unit)
            for j in range(4):
                for i in range(4):
                    score = acc[4 * j + i]
                    if masked:
                        inside = self._column(key, j, i) < self.shape.tokens
                        score = order(inside, score, const(LOWEST))
                    put(self.maximum, i // 2, tirx.max(self.maximum[i // 2], score))

        self._each_unit(first, work)

    def share_maximum(self) -> None:
        """Each row's maximum over all keys, for all threads that work on it."""
        for half in HALVES:
            for mask in (1, 2):
                other = keep(intrinsics.shuffle(self.maximum[half], mask))
                put(self.maximum, half, tirx.max(self.maximum[half], other))
        self._exchange(self.maximum, 0, tirx.max)

    def _exchange(self, values: Buffer, which: int, combine: Callable[[Expr, Expr], Expr]) -> None:
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

    def start(self, octaves: Capped, form: CodeForm) -> None:
        """Begin the second product, with how scores become codes."""
        self.octaves, self.form = octaves, form
        self.total, self.acc = registers(2), registers(4 * self.shape.fragments)
        for i in range(2):
            put(self.total, i, const(0))
        for i in range(4 * self.shape.fragments):
            put(self.acc, i, const(0))

    def add_products(self, first: Expr) -> None:
        """Codes of this warp's keys of a chunk, their sums, and codes times V."""

        def work(unit: Expr, key: Expr, masked: bool) -> None:
            acc = self._scores(unit)
            codes = []
            for j in range(4):
                for i in range(4):
                    distance = keep(self.maximum[i // 2] - acc[4 * j + i])
                    code = code_of(self.octaves(distance), self.form)
                    if masked:
                        inside = self._column(key, j, i) < self.shape.tokens
                        code = order(inside, code, const(0))
                    put(self.total, i // 2, self.total[i // 2] + code)
                    codes.append(code)
            self._multiply(unit, [codes[4 * j : 4 * j + 4] for j in range(4)])

        self._each_unit(first, work)

    def _multiply(self, unit: Expr, codes: list[list[Expr]]) -> None:
        """Codes of 32 keys, by fragment and register, times V."""
        left = []
        for r in range(4):
            pair, half = codes[r // 2 * 2 : r // 2 * 2 + 2], 2 * (r % 2)
            left.append(packed([c for code in pair for c in code[half : half + 2]], 8))
        layout, shape = Layout(UNIT, False), self.shape
        base = index(shape.value_base + unit * shape.unit_bytes)
        for j in range(0, shape.fragments, 2):
            values = registers(4)
            # A last fragment without a partner: the other half of the lanes reads it again.
            partner = FRAGMENT if j + 1 < shape.fragments else 0
            row = j * FRAGMENT + self.lane // 16 * partner + self.lane % 8
            at = base + layout.offset(row, self.lane // 8 % 2)
            intrinsics.ldmatrix(address(values, 0), address(self.shared.bytes, at))
            for k in range(min(2, shape.fragments - j)):
                right = [values[2 * k], values[2 * k + 1]]
                intrinsics.mma(address(self.acc, 4 * (j + k)), left, right, CODES)

    def share_products(self) -> None:
        """Add up what the groups of warps have, for the first group."""
        for half in HALVES:
            for mask in (1, 2):
                other = keep(intrinsics.shuffle(self.total[half], mask))
                put(self.total, half, self.total[half] + other)
        self._exchange(self.total, 1, lambda a, b: a + b)
        shape, words = self.shape, self.shared.view("int32")
        if shape.key_warps == 1:
            return
        count, threads = 4 * shape.fragments, WARP * shape.row_warps
        member = index(self.block.thread % threads)
        with when(self.key_warp > 0):
            for i in range(count):
                put(words, ((self.key_warp - 1) * count + i) * threads + member, self.acc[i])
        intrinsics.barrier()
        with when(self.key_warp < 1):
            for i in range(count):
                total = self.acc[i]
                for group in range(shape.key_warps - 1):
                    total = total + words[(group * count + i) * threads + member]
                put(self.acc, i, total)

    def finish(self, normalize: Normalize, v_zero: Expr, out: Buffer, dtype: str) -> None:
        """Divide by the sums of codes, requantize and store."""
        with when(True if self.shape.key_warps == 1 else self.key_warp < 1):
            for half in HALVES:
                row = index(self.row + 8 * half)
                with when(row < self.shape.tokens):
                    self._finish_row(half, row, normalize, v_zero, out, dtype)

    def _finish_row(
        self, half: int, row: Expr, normalize: Normalize, v_zero: Expr, out: Buffer, dtype: str
    ) -> None:
        shape, total = self.shape, keep(self.total[half])
        multiplier = normalize.multiplier(wide(total))
        offset = keep(total * v_zero)
        tiles = shape.run // 2
        at = (self.block.z * shape.tokens + row) * shape.heads + self.block.y
        at = index(at * shape.width + self.lane % 4 * shape.run)
        for group in range(shape.fragments // tiles):
            done = []
            for c in range(shape.run):
                acc = self.acc[4 * (group * tiles + c // 2) + 2 * half + c % 2]
                done.append(normalize(keep(acc - offset), multiplier))
            self._store(done, index(at + group * 4 * shape.run), group, out, dtype)

    def _store(self, done: list[Expr], at: Expr, group: int, out: Buffer, dtype: str) -> None:
        """Neighbouring channels, in words where that is possible."""
        shape = self.shape
        first = group * 4 * shape.run + self.lane % 4 * shape.run
        inside = (group + 1) * 4 * shape.run <= shape.width
        if BYTES[dtype] == 1 and shape.run % WORD_BYTES == 0 and shape.width % shape.run == 0:
            words = registers(shape.run // WORD_BYTES)
            for w in range(shape.run // WORD_BYTES):
                put(words, w, packed(done[w * WORD_BYTES : (w + 1) * WORD_BYTES], 8))
            with when(True if inside else first < shape.width):
                where = index(at // WORD_BYTES)
                put_many(flat(out, "int32"), where, words, shape.run // WORD_BYTES)
            return
        for c, code in enumerate(done):
            with when(True if inside else first + c < shape.width):
                put(out, at + c, code)
