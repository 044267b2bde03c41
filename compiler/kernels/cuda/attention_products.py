"""Codes of a warp's scores, their sums, and codes times V, normalized.

As the order of keys does not matter in this product, its first operand takes the codes where they
are: the four bytes of a register are the keys 2 t, 2 t + 1, 8 + 2 t, 8 + 2 t + 1 (plus 16 in the
second half). The transposing ``ldmatrix`` of V gives two neighbouring channels of keys 2 t and
2 t + 1, so that two of its registers, permuted, are the second operand for both channels: the even
ones are one fragment, the odd ones another. A thread then has four neighbouring channels of a row.

The sum of a row's codes is one more product, with ones.
"""

from collections.abc import Callable

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import Normalize, order
from vitq.compiler.kernels.cuda.attention_rows import HALVES, SCORES, Rows
from vitq.compiler.kernels.cuda.attention_shape import CHANNELS, PAIR, UNIT
from vitq.compiler.kernels.cuda.codes import store_codes
from vitq.compiler.kernels.cuda.emit import (
    WARP,
    Buffer,
    Expr,
    address,
    const,
    index,
    keep,
    put,
    registers,
    when,
    wide,
)
from vitq.compiler.kernels.cuda.loading import Layout

CODES, ONES = "u8s8", 0x01010101
EVEN, ODD = 0x6420, 0x7531
"""Bytes of one of two neighbouring channels in two registers."""
RUN = 4
"""Neighbouring channels of a thread."""


class Products:
    """The second product of 16 rows.

    Args:
        rows: with their scores and shared maximum.
        code: of a distance from the maximum.
    """

    def __init__(self, rows: Rows, code: Callable[[Expr], Expr]) -> None:
        self.rows, self.shape, self.code = rows, rows.shape, code
        self.acc, self.total = registers(PAIR * self.shape.groups), registers(4)
        for buffer, count in ((self.acc, PAIR * self.shape.groups), (self.total, 4)):
            for i in range(count):
                put(buffer, i, const(0))

    def add(self, first: Expr) -> None:
        """Return this warp's keys of a chunk."""
        self.rows.each(first, self._unit)

    def _unit(self, unit: Expr, key: Expr, acc: Buffer, masked: bool) -> None:
        codes = []
        for i in range(SCORES):
            code = self.code(keep(self.rows.maximum[i % 4 // 2] - acc[i]))
            if masked:
                code = order(self.rows.column(key, i) < self.shape.tokens, code, const(0))
            codes.append(code)
        left = []
        for r in range(4):
            start = 8 * (r // 2) + 2 * (r % 2)
            four = [codes[start + i] for i in (0, 1, 4, 5)]
            left.append(keep(intrinsics.pack(four, "u8")))
        ones = [const(ONES), const(ONES)]
        intrinsics.mma(address(self.total, 0), left, ones, CODES)
        layout = Layout(self.shape.row_bytes, False)
        row = index(unit * UNIT + self.rows.lane)
        for group in range(self.shape.groups):
            at = index(layout.offset(row, group) + self.shape.value_base)
            values = registers(4)
            intrinsics.ldmatrix_trans(address(values, 0), address(self.rows.shared.bytes, at))
            for parity, selector in enumerate((EVEN, ODD)):
                right = [
                    keep(intrinsics.permute(values[2 * half], values[2 * half + 1], selector))
                    for half in HALVES
                ]
                place = PAIR * group + 4 * parity
                intrinsics.mma(address(self.acc, place), left, right, CODES)

    def share(self) -> None:
        """Add up what the groups of warps have, for the first group."""
        shape, rows = self.shape, self.rows
        if shape.key_warps == 1:
            return
        sums = registers(2)
        for half in HALVES:
            put(sums, half, self.total[2 * half])
        rows.exchange(sums, 1, lambda a, b: a + b)
        for half in HALVES:
            put(self.total, 2 * half, sums[half])
        words = rows.shared.view("int32")
        count, threads = PAIR * shape.groups, WARP * shape.row_warps
        member = index(rows.block.thread % threads)
        with when(rows.key_warp > 0):
            for i in range(count):
                put(words, ((rows.key_warp - 1) * count + i) * threads + member, self.acc[i])
        intrinsics.barrier()
        with when(rows.key_warp < 1):
            for i in range(count):
                total = self.acc[i]
                for group in range(shape.key_warps - 1):
                    total = total + words[(group * count + i) * threads + member]
                put(self.acc, i, total)

    def finish(self, normalize: Normalize, v_zero: Expr, out: Buffer) -> None:
        """Divide by the sums of codes, requantize and store."""
        rows = self.rows
        with when(True if self.shape.key_warps == 1 else rows.key_warp < 1):
            for half in HALVES:
                row = index(rows.row + 8 * half)
                with when(row < self.shape.tokens):
                    self._finish_row(half, row, normalize, v_zero, out)

    def _finish_row(
        self, half: int, row: Expr, normalize: Normalize, v_zero: Expr, out: Buffer
    ) -> None:
        shape, block = self.shape, self.rows.block
        total = keep(self.total[2 * half])
        multiplier = normalize.multiplier(wide(total))
        offset = keep(total * v_zero)
        at = (block.z * shape.tokens + row) * shape.heads + block.y
        first = index(self.rows.lane % 4 * RUN)
        at = index(at * shape.width + first)
        for group in range(shape.groups):
            places = [PAIR * group + 4 * (c % 2) + 2 * half + c // 2 for c in range(RUN)]
            done = [normalize(keep(self.acc[p] - offset), multiplier) for p in places]
            inside = (group + 1) * CHANNELS <= shape.width
            with when(True if inside else first + group * CHANNELS < shape.width):
                store_codes(out, index(at + group * CHANNELS), done, normalize.saturate)
