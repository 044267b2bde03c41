"""The loops around the register tile where many rows meet constant weights.

The product is cut into blocks of rows times column tiles. Each such item is one iteration of one
parallel loop, so that any number of threads gets nearly equal shares, remainders included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import Expr, bind, parallel, prefetch, serial, when
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.microkernel import (
    WIDENED_ROWS,
    Product,
    Tile,
    choose_tile,
    emit_accumulators,
    widened,
)
from vitq.compiler.kernels.kernel import Knob, Schedule


class TileEpilogue(Protocol):
    """What happens to a finished tile."""

    def __call__(self, row: Expr, group: Expr, accs: list[list[Expr]], exist: int) -> None:
        """Take a tile.

        Args:
            row: the first one.
            group: the first one.
            accs: accumulators by row and column.
            exist: channels of the last group.
        """


CACHE_LINE = 64
COLUMNS = (1, 2, 3, 4, 6, 8)
ROWS = (1, 2, 3, 4, 6, 8, 12, 14)
BLOCKS = (1, 2, 4, 8, 16, 32)
LARGE_BLOCKS = (8, 16, 32)
MANY_PANELS = 6


@dataclass(frozen=True)
class Blocking:
    """How a product is cut.

    Attributes:
        tile: the register tile.
        block: row tiles in one item.
        rows_outer: whether all column tiles of a block of rows follow each other, or all blocks of
            rows of a column tile.
        prefetch: whether a tile asks for the weights of the next column tile.
    """

    tile: Tile
    block: int
    rows_outer: bool
    prefetch: bool

    def items(self, rows: int, groups: int) -> tuple[int, int]:
        """Blocks of rows, and column tiles."""
        return -(-rows // (self.block * self.tile.rows)), -(-groups // self.tile.columns)


def knobs(dot: Dot, rows: int, groups: int, pairs: bool, unpacks: bool) -> dict[str, Knob]:
    """Return what `blocking` takes.

    Args:
        dot: the primitive.
        rows: M.
        groups: of channels.
        pairs: whether an odd number of columns costs more to finish.
        unpacks: whether each item unpacks its weights: larger blocks of rows do so less often, as
            long as there are some items for each thread.
    """
    tile = choose_tile(dot, rows, groups)
    if pairs and tile.columns % 2 and groups > 1:
        columns = tile.columns + 1 if groups > tile.columns else tile.columns - 1
        tile = Tile(min(_tallest(dot, columns), rows), columns)
    fetch = int(dot.lanes * dot.depth == CACHE_LINE)
    block = Knob(BLOCKS, 4)
    if unpacks:
        block = Knob(LARGE_BLOCKS, LARGE_BLOCKS[-1 if groups >= MANY_PANELS * tile.columns else -2])
    return {
        "rows": _knob(ROWS, tile.rows),
        "columns": _knob(COLUMNS, tile.columns),
        "block": block,
        "rows_outer": Knob((0, 1), 0),
        "prefetch": Knob((0, 1), fetch),
    }


def _knob(choices: tuple[int, ...], default: int) -> Knob:
    return Knob(tuple(sorted({*choices, default})), default)


def blocking(schedule: Schedule, dot: Dot, rows: int, groups: int) -> Blocking:
    """Return the choices of a schedule, limited to what the product and the registers hold."""
    most = (dot.registers - dot.spare) // 2
    columns = min(schedule["columns"], groups, most)
    tile = Tile(min(schedule["rows"], _tallest(dot, columns), rows), columns)
    fetch = bool(schedule["prefetch"])
    return Blocking(tile, schedule["block"], bool(schedule["rows_outer"]), fetch)


def _tallest(dot: Dot, columns: int) -> int:
    """Return the most rows of a tile that the registers hold."""
    return max((dot.registers - dot.spare - columns) // columns, 1) * dot.rows


def emit_blocked(
    p: Product, rows: int, channels: int, how: Blocking, epilogue: Callable[[], TileEpilogue]
) -> None:
    """Emit a product of `rows` rows with all channels as one parallel loop.

    Args:
        p: the product.
        rows: M.
        channels: N.
        how: it is cut; the last items of both axes are smaller.
        epilogue: called in each item; what it returns finishes the item's tiles.
    """
    lanes = p.dot.lanes
    groups = p.dot.groups(channels)
    valid = channels - (groups - 1) * lanes
    blocks, panels = how.items(rows, groups)
    last = groups - (panels - 1) * how.tile.columns
    with parallel(blocks * panels) as item:
        order = (panels, item // panels, item % panels)
        if not how.rows_outer:
            order = (blocks, item % blocks, item // blocks)
        block, panel = bind(order[1]), bind(order[2])
        group = bind(panel * how.tile.columns)
        finish = epilogue()

        def emit(columns: int, exist: int) -> None:
            tile = Tile(how.tile.rows, columns)
            _emit_item(p, rows, tile, (block, group), how, partial(finish, exist=exist))

        if (last, valid) == (how.tile.columns, lanes):
            emit(last, lanes)
        else:
            if panels > 1:
                with when(panel < panels - 1):
                    emit(how.tile.columns, lanes)
            with when(panel == panels - 1):
                emit(last, valid)


def _emit_item(
    p: Product,
    rows: int,
    tile: Tile,
    at: tuple[Expr, Expr],
    how: Blocking,
    epilogue: Callable[[Expr, Expr, list[list[Expr]]], None],
) -> None:
    """Return the tiles of a block of rows, the last block's shorter tile included."""
    block, group = at
    whole, rest = divmod(rows, tile.rows)
    packed, narrow, groups = p.packed, p.narrow, int(p.packed.shape[0])
    if min(how.block * tile.rows, rows) >= WIDENED_ROWS:
        p = widened(p, tile.columns, group)

    def emit(part: Tile, index: Expr) -> None:
        row = index * tile.rows if isinstance(index, int) else bind(index * tile.rows)
        ahead = bind(tirx.min(group + tile.columns + index % tile.columns, groups - 1))

        def fetch(step: Expr) -> None:
            unpacked = narrow is not None and p.narrow is None
            line = step * narrow.registers // narrow.steps if narrow and unpacked else step
            prefetch(packed, ahead, line, 0)

        tile_accs = emit_accumulators(p, part, row, group, fetch if how.prefetch else None)
        epilogue(row, group, tile_accs)

    if whole:
        with serial(bind(tirx.min(whole - block * how.block, how.block))) as i:
            emit(tile, bind(block * how.block + i))
    if rest:
        with when(block == whole // how.block):
            emit(Tile(rest, tile.columns), whole)
