"""The register tile shared by every matrix product, and the loops around it.

A tile keeps ``rows x columns`` accumulator registers (a column is one group of `Dot.lanes`
channels) over the whole inner dimension. Column tiles are the outer loop, because a column
tile's packed weights then stay in the L1 cache while the rows stream past; the remainders of
both loops get tiles of their own, so that nothing is padded in memory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    const,
    for_chunks,
    lanes_of,
    load,
    parallel,
    serial,
    store,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.narrow import Narrow

Epilogue = Callable[[Expr, Expr, Expr], None]
"""Called with (row, group, accumulators) for each finished register."""
Loop = Callable[[int], AbstractContextManager[Expr]]
Start = Callable[[Expr], Expr]
"""The initial accumulators of a group."""
Read = Callable[[Expr, Expr, int], Expr]
"""Reads ``lanes`` elements of a matrix at (row, column, lanes)."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns (channel groups) whose accumulators are held in registers."""

    rows: int
    columns: int


MAX_COLUMNS = 14
WIDENED_ROWS = 16
"""With fewer rows weights are widened or unpacked as they are multiplied."""


def choose_tile(dot: Dot, rows: int, groups: int) -> Tile:
    """Return the tile with the lowest estimated cost for a product.

    A tile's registers are its accumulators, one for each column's weights and `Dot.spare`. Its step
    costs a slot for each product, or for each load if those are more, and no less than the dot
    product's latency, which only matters where few accumulators exist (the classifier head's single
    row). Remainders of rows and columns are tiles of their own.
    """

    def cost(tile: Tile) -> float:
        total = 0.0
        for r, times in _pieces(rows, tile.rows):
            for c, more in _pieces(groups, tile.columns):
                r = -(-r // dot.rows)
                total += times * more * dot.slots(r, c)
        return total

    candidates = []
    for columns in range(1, min(MAX_COLUMNS, groups) + 1):
        tallest = (dot.registers - dot.spare - columns) // columns
        if tallest > 0:
            candidates.append(Tile(min(tallest * dot.rows, rows), columns))
    return min(candidates, key=lambda t: (cost(t), abs(t.columns - t.rows // 2)))


def _pieces(size: int, step: int) -> list[tuple[int, int]]:
    """(extent, how often) of a loop over `size` in steps and its remainder."""
    pieces = [(step, size // step), (size % step, 1)]
    return [(extent, times) for extent, times in pieces if extent and times]


@dataclass(frozen=True)
class Product:
    """One matrix product: ``rows (M, K) x packed (groups, steps, lanes * depth)``.

    Attributes:
        dot: the primitive.
        rows: activations as stored for the primitive, at least ``steps * depth`` wide.
        packed: weights.
        steps: of the inner dimension.
        start: initial accumulators of a group, or None for zeros.
        origin: the group that `packed` begins with.
        narrow: how weights of fewer than eight bits are packed; None for bytes.
        up: by how many bits weights are too large when they are multiplied.
    """

    dot: Dot
    rows: Buffer
    packed: Buffer
    steps: int
    start: Start | None = None
    origin: Expr = 0
    narrow: Narrow | None = None
    up: int = 0

    @property
    def together(self) -> int:
        """Steps whose weights share registers."""
        return self.narrow.steps if self.narrow else 1

    def weights(self, group: Expr, step: Expr, more: int) -> Expr:
        """Load a group's weights as they are multiplied.

        Args:
            group: which.
            step: a multiple of `together`.
            more: steps further.
        """
        dot, n, at = self.dot, self.narrow, group - self.origin
        if n is None:
            return dot.weights(self.packed, at, step + more)
        first = (step // n.steps + more // n.steps) * n.registers

        def read(register: int) -> Expr:
            return load(self.packed, at, first + register, 0, lanes=dot.lanes * dot.depth)

        return dot.operand(n.unpack(read, more % n.steps))


def emit_tile(p: Product, tile: Tile, row: Expr, group: Expr, epilogue: Epilogue) -> None:
    """One tile over the whole inner dimension, then its epilogue.

    Args:
        p: the product.
        tile: its size.
        row: first row.
        group: first group.
        epilogue: what happens to the accumulators.
    """
    for r, registers in enumerate(emit_accumulators(p, tile, row, group)):
        for c, acc in enumerate(registers):
            epilogue(row + r, group + c, acc)


def emit_accumulators(
    p: Product,
    tile: Tile,
    row: Expr,
    group: Expr,
    each_step: Callable[[Expr], None] | None = None,
) -> list[list[Expr]]:
    """One tile over the whole inner dimension.

    Args:
        p: the product.
        tile: its size.
        row: first row.
        group: first group.
        each_step: called with a register of packed weights; emits what else is to be done while it
            is multiplied.

    Returns:
        The accumulators by row and column.
    """
    dot = p.dot
    size = tile.rows, tile.columns
    own = dot.own_tile(p.rows, p.weights, (p.steps, p.together), size, (row, group), p.start)
    if own is not None:
        return [[_shifted(acc, p.up) for acc in accs] for accs in own]
    rows, columns = range(tile.rows), range(tile.columns)
    acc = [[alloc((dot.lanes,), "int32") for _ in columns] for _ in rows]
    for c in columns:
        first = const(0, "int32", dot.lanes) if p.start is None else bind(p.start(group + c))
        for r in rows:
            store(acc[r][c], first, 0)

    def advance(step: Expr, count: int) -> None:
        for more in range(count):
            b = [p.weights(group + c, step, more) for c in columns]
            for r in rows:
                a = dot.activations(p.rows, row + r, step + more)
                for c in columns:
                    old = load(acc[r][c], 0, lanes=dot.lanes)
                    store(acc[r][c], dot.accumulate(old, a, b[c]), 0)

    if p.steps // p.together:
        with serial(p.steps // p.together) as i:
            for register in range(p.narrow.registers if p.narrow and each_step else 1):
                if each_step is not None:
                    each_step(i * p.narrow.registers + register if p.narrow else i)
            advance(i * p.together, p.together)
    if rest := p.steps % p.together:
        advance(p.steps - rest, rest)
    lanes = dot.lanes
    return [[_shifted(load(acc[r][c], 0, lanes=lanes), p.up) for c in columns] for r in rows]


def _shifted(acc: Expr, up: int) -> Expr:
    """Bring down an accumulator of weights that were multiplied ``2**up`` times too large."""
    return bind(acc >> const(up, "int32", lanes_of(acc))) if up else acc


def emit_rows(
    p: Product, tile: Tile, rows: int, group: Expr, epilogue: Epilogue, first: Expr = 0
) -> None:
    """All of `rows` rows from `first` on for one column tile."""
    if rows >= WIDENED_ROWS:
        p = widened(p, tile.columns, group)
    if rows // tile.rows:
        with serial(rows // tile.rows) as i:
            emit_tile(p, tile, first + i * tile.rows, group, epilogue)
    if rest := rows % tile.rows:
        emit_tile(p, Tile(rest, tile.columns), first + rows - rest, group, epilogue)


def widened(p: Product, columns: int, group: Expr) -> Product:
    """Return the product with a column tile's weights as its primitive multiplies them, in scratch.

    Widening or unpacking them once is cheaper than in each row tile's loop, and constants stay
    small. The scratch is as large as a column tile of bytes would be, and is read as that would.
    """
    dot, dtype = p.dot, str(p.packed.ty.dtype)
    stored = dot.stored(dtype, weights=True)
    if dtype == stored and p.narrow is None:
        return p
    scratch = alloc((columns, p.steps, dot.lanes * dot.depth), stored)

    def widen(c: int, step: Expr, count: int) -> None:
        for more in range(count):
            store(scratch, p.weights(group + c, step, more), c, step + more, 0)

    for c in range(columns):
        if p.steps // p.together:
            with serial(p.steps // p.together) as i:
                widen(c, i * p.together, p.together)
        if rest := p.steps % p.together:
            widen(c, p.steps - rest, rest)
    return replace(p, packed=scratch, origin=group, narrow=None)


def emit_product(
    p: Product,
    rows: int,
    channels: int,
    epilogue: Callable[[int], Epilogue],
    loop: Loop = parallel,
    first: Expr = 0,
) -> None:
    """Emit a product of `rows` rows with all channels.

    Args:
        p: the product.
        rows: M.
        channels: N.
        epilogue: called with how many channels of a tile's last group exist.
        loop: over column tiles; `serial` inside of another parallel loop.
        first: the first row.
    """
    lanes = p.dot.lanes
    groups = p.dot.groups(channels)
    tile = choose_tile(p.dot, rows, groups)
    partial = channels % lanes
    whole = (groups - 1 if partial else groups) // tile.columns
    if whole:
        with loop(whole) as i:
            emit_rows(p, tile, rows, i * tile.columns, epilogue(lanes), first)
    done = whole * tile.columns
    full = groups - done - (1 if partial else 0)
    if full:
        emit_rows(p, Tile(tile.rows, full), rows, done, epilogue(lanes), first)
    if partial:
        emit_rows(p, Tile(tile.rows, 1), rows, groups - 1, epilogue(partial), first)


def store_lanes(out: Buffer, value: Expr, valid: int, *index: Expr) -> None:
    """Store the first `valid` lanes of a vector.

    Args:
        out: any integer buffer.
        value: int32 lanes that fit into the buffer's type.
        valid: how many lanes exist.
        index: of the first lane.
    """
    lanes = lanes_of(value)
    if valid == lanes:
        store(out, value, *index)
        return
    scratch = alloc((lanes,), "int32")
    store(scratch, value, 0)
    with serial(valid) as i:
        store(out, load(scratch, i), *index[:-1], index[-1] + i)


def needs_staging(dot: Dot, inner: int, dtype: str) -> bool:
    """Whether activations must be copied before the primitive can read them."""
    changed = dot.offset(dtype) != 0 or dot.stored(dtype, weights=False) != dtype
    return changed or dot.rows_shape(2, inner) != (2, inner)


def stage_rows(
    read: Read, rows: int, inner: int, dtype: str, dot: Dot, loop: Loop = parallel
) -> Buffer:
    """Copy activations to scratch as the primitive reads them: flipped or widened, and padded.

    Args:
        read: the (rows, inner) activations.
        rows: M.
        inner: K.
        dtype: int8 or uint8.
        dot: the primitive.
        loop: over rows.

    Returns:
        `Dot.rows_shape` of type `Dot.stored`.
    """
    staged = alloc_staged(rows, inner, dtype, dot)
    with loop(rows) as r:

        def copy(i: Expr, lanes: int) -> None:
            store_staged(staged, read(r, i, lanes), dtype, dot, r, i)

        for_chunks(inner, min(4 * dot.lanes, inner), copy)
        pad_staged(staged, r, inner, dot)
    return staged


def alloc_staged(rows: int, inner: int, dtype: str, dot: Dot) -> Buffer:
    """Memory for `rows` activations as the primitive reads them."""
    return alloc(dot.rows_shape(rows, inner), dot.stored(dtype, weights=False))


def store_staged(staged: Buffer, value: Expr, dtype: str, dot: Dot, row: Expr, i: Expr) -> None:
    """Store activations of type `dtype` as the primitive reads them."""
    if offset := dot.offset(dtype):  # 128 or -128: the top bit
        value = bind(value ^ const(-offset, dtype, lanes_of(value)))
    dot.store_row(staged, value, row, i)


def pad_staged(staged: Buffer, row: Expr, inner: int, dot: Dot) -> None:
    """Zeros behind the last activation of a row."""
    for i in range(inner, dot.steps(inner) * dot.depth):
        dot.store_row(staged, const(0, str(staged.ty.dtype)), row, i)
