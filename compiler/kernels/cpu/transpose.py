"""Packing K by transposing 16 x 16 words in registers, sixteen times fewer memory operations.

Sixteen rows of 64 bytes are sixteen rows of int32 words; a product's step wants one column of them.
Four stages of shuffles: words of two rows, pairs of words, then twice blocks of 128 bits.

Rows of 32 bytes more (head dimension 32 or 96) are read twice into a register: its first eight
columns are those wanted, and LLVM drops the shuffles of the others.
"""

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    reinterpret,
    serial,
    store,
    view,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.microkernel import Read
from vitq.compiler.kernels.tensor import TensorType

WORDS = 16
BLOCK = 4
"""Words of 128 bits."""


def can_transpose(dot: Dot, inner: int, dtype: str) -> bool:
    """Whether whole registers of bytes are packed as they are."""
    whole = (dot.lanes, dot.depth) == (WORDS, BLOCK) and inner % (WORDS // 2 * BLOCK) == 0
    return whole and dtype == "int8"


def pack_transposed(read: Read, channels: int, inner: int, dot: Dot) -> Buffer:
    """Like `packing.pack_rows`, but missing channels repeat the last one.

    Args:
        read: the (channels, inner) matrix.
        channels: N.
        inner: K; see `can_transpose`.
        dot: the primitive.

    Returns:
        (groups, steps, lanes * depth).
    """
    groups, steps = dot.groups(channels), dot.steps(inner)
    packed = alloc((groups, steps, WORDS * BLOCK), "int8")
    words = view(packed, TensorType((groups, steps, WORDS), "int32"))

    def transpose(group: Expr, first: Expr, count: int) -> None:
        """Pack steps of one group; `count` is 16 or 8."""
        rows = []
        for r in range(WORDS):
            row = bind(tirx.min(group * WORDS + r, channels - 1))
            value = read(row, first * BLOCK, count * BLOCK)
            own = bind(reinterpret(value, f"int32x{count}"))
            rows.append(own if count == WORDS else bind(tirx.Shuffle([own, own], [*range(WORDS)])))
        for step, column in enumerate(_transpose(rows)[:count]):
            store(words, column, group, first + step, 0)

    with serial(groups) as group:
        if steps // WORDS:
            with serial(steps // WORDS) as part:
                transpose(group, part * WORDS, WORDS)
        if steps % WORDS:
            transpose(group, steps - steps % WORDS, steps % WORDS)
    return packed


def _transpose(rows: list[Expr]) -> list[Expr]:
    """Columns of 16 rows of 16 words."""
    fours = [_columns_of_four(rows[i : i + BLOCK]) for i in range(0, WORDS, BLOCK)]
    columns: list[Expr] = [None] * WORDS
    for c in range(BLOCK):
        a, b, d, e = (four[c] for four in fours)
        low, high = _blocks(a, b, (0, 1)), _blocks(a, b, (2, 3))
        low2, high2 = _blocks(d, e, (0, 1)), _blocks(d, e, (2, 3))
        for block, (x, y) in enumerate(((low, low2), (high, high2))):
            for half in range(2):
                columns[BLOCK * (2 * block + half) + c] = _blocks(x, y, (half, half + 2))
    return columns


def _columns_of_four(rows: list[Expr]) -> list[Expr]:
    """Register c holds, in block b, column ``4 b + c`` of four rows."""
    first, second = ([_mix(rows[i], rows[i + 1], 1, h) for h in range(2)] for i in (0, 2))
    return [_mix(first[c // 2], second[c // 2], 2, c % 2) for c in range(BLOCK)]


def _mix(a: Expr, b: Expr, unit: int, half: int) -> Expr:
    """Interleave units of words from one half of each block (vpunpck)."""
    indices = []
    for block in range(0, WORDS, BLOCK):
        for at in range(block + 2 * half, block + 2 * half + 2, unit):
            indices += [source + at + i for source in (0, WORDS) for i in range(unit)]
    return bind(tirx.Shuffle([a, b], indices))


def _blocks(a: Expr, b: Expr, chosen: tuple[int, int]) -> Expr:
    """Two blocks of each register (vshufi32x4)."""
    firsts = [source + BLOCK * block for source in (0, WORDS) for block in chosen]
    return bind(tirx.Shuffle([a, b], [first + i for first in firsts for i in range(BLOCK)]))
