"""The register tiles of attention's two products.

A tile takes whichever operand is fewer (activations or weights) into registers first, and is as
wide as the row of scores where there are few rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitq.compiler.kernels.cpu.builder import Buffer, Expr, alloc, const, load, serial, store
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.microkernel import Tile

Finish = Callable[[Expr, Expr, Sequence[Expr]], None]
"""Called with a row, its first group and its accumulators, for each row of a finished tile."""


@dataclass(frozen=True)
class Operands:
    """One product: ``rows (M, K) x packed (groups, steps, lanes * depth)``.

    Attributes:
        rows: activations as stored for the primitive.
        packed: weights.
        steps: of the inner dimension.
        start: initial accumulators (groups, lanes), or None for zeros.
    """

    rows: Buffer
    packed: Buffer
    steps: int
    start: Buffer | None = None


def largest_columns(dot: Dot, rows: int) -> int:
    """Columns that a tile of some rows can have.

    The registers hold its accumulators, the operand that is fewer (activations or weights), and
    one of the other.
    """
    free, rows = dot.registers - dot.spare, -(-rows // dot.rows)
    return max(c for c in range(free) if rows * c + min(rows, c) <= free)


def emit_columns(dot: Dot, p: Operands, tile: Tile, rows: int, groups: int, finish: Finish) -> None:
    """All groups of `rows` rows, in tiles of about equal numbers of columns.

    Args:
        dot: the primitive.
        p: the product.
        tile: the largest tile.
        rows: M.
        groups: of channels.
        finish: what happens to accumulators.
    """
    pieces = -(-groups // tile.columns)
    small, larger = divmod(groups, pieces)

    def emit_rows(group: Expr, columns: int) -> None:
        if rows // tile.rows:
            with serial(rows // tile.rows) as i:
                _emit_tile(dot, p, Tile(tile.rows, columns), (i * tile.rows, group), finish)
        if rest := rows % tile.rows:
            _emit_tile(dot, p, Tile(rest, columns), (rows - rest, group), finish)

    if larger:
        with serial(larger) as i:
            emit_rows(i * (small + 1), small + 1)
    if pieces - larger:
        with serial(pieces - larger) as i:
            emit_rows(larger * (small + 1) + i * small, small)


def _emit_tile(dot: Dot, p: Operands, tile: Tile, first: tuple[Expr, Expr], finish: Finish) -> None:
    """One tile at (row, group) over the whole inner dimension."""
    row, group = first

    def begin(g: Expr) -> Expr:
        return load(p.start, g, 0, lanes=dot.lanes)

    start_at = None if p.start is None else begin

    def read(g: Expr, step: Expr, more: int) -> Expr:
        return dot.weights(p.packed, g, step + more)

    size = tile.rows, tile.columns
    own = dot.own_tile(p.rows, read, (p.steps, 1), size, first, start_at)
    if own is not None:
        for r, accs in enumerate(own):
            finish(row + r, group, accs)
        return
    rows, columns = range(tile.rows), range(tile.columns)
    acc = [[alloc((dot.lanes,), "int32") for _ in columns] for _ in rows]
    for c in columns:
        zero = const(0, "int32", dot.lanes)
        start = zero if p.start is None else load(p.start, group + c, 0, lanes=dot.lanes)
        for r in rows:
            store(acc[r][c], start, 0)
    with serial(p.steps) as step:

        def left(r: int) -> Expr:
            return dot.activations(p.rows, row + r, step)

        def right(c: int) -> Expr:
            return dot.weights(p.packed, group + c, step)

        def add(r: int, c: int, a: Expr, b: Expr) -> None:
            store(acc[r][c], dot.accumulate(load(acc[r][c], 0, lanes=dot.lanes), a, b), 0)

        if tile.rows <= tile.columns:
            a = [left(r) for r in rows]
            for c in columns:
                b = right(c)
                for r in rows:
                    add(r, c, a[r], b)
        else:
            weights = [right(c) for c in columns]
            for r in rows:
                one = left(r)
                for c in columns:
                    add(r, c, one, weights[c])
    for r in rows:
        finish(row + r, group, [load(acc[r][c], 0, lanes=dot.lanes) for c in columns])
