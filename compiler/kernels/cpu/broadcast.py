"""Walks operands that broadcast to each other.

Axes along which every operand either moves or stands still are merged: the walk is one parallel
loop over all but the last of the merged axes, and vectors along that. An operand that stands still
along it is one number for a whole vector.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from vitq.compiler.kernels.broadcasting import broadcast_index
from vitq.compiler.kernels.cpu.builder import Expr, bind, for_chunks, parallel
from vitq.compiler.kernels.cpu.elementwise import for_flat
from vitq.relay_passes.dialect import names

Body = Callable[[Expr, list[Expr], int], None]


class Axis(NamedTuple):
    """Axes of the result that are walked as one.

    Attributes:
        extent: how many elements.
        moves: for each operand, whether it has as many.
    """

    extent: int
    moves: tuple[bool, ...]


def merged_axes(shape: tuple[int, ...], operands: Sequence[tuple[int, ...]]) -> list[Axis]:
    """Return the fewest axes that say how operands broadcast to a shape.

    Args:
        shape: of the result.
        operands: shapes that broadcast to it.

    Returns:
        At least one axis; none of extent 1 beside others.
    """
    padded = [(1,) * (len(shape) - len(operand)) + operand for operand in operands]
    merged: list[Axis] = []
    for i, extent in enumerate(shape):
        moves = tuple(operand[i] == extent for operand in padded)
        if extent == 1:
            continue
        if merged and merged[-1].moves == moves:
            merged[-1] = Axis(merged[-1].extent * extent, moves)
        else:
            merged.append(Axis(extent, moves))
    return merged or [Axis(1, (True,) * len(operands))]


def walk(shape: tuple[int, ...], operands: Sequence[tuple[int, ...]], lanes: int) -> "Walk":
    """Plan a walk; see `Walk.emit`."""
    return Walk(merged_axes(shape, operands), lanes)


class Walk(NamedTuple):
    """A walk over all elements of a result.

    Attributes:
        axes: from `merged_axes`.
        lanes: of a vector.
    """

    axes: list[Axis]
    lanes: int

    @property
    def along(self) -> tuple[bool, ...]:
        """Whether each operand moves along a vector."""
        return self.axes[-1].moves

    def emit(self, body: Body) -> None:
        """Emit the loops.

        Args:
            body: called with the flat index of a vector's first element, that of each operand's,
                and how many elements to process.
        """
        *outer, inner = self.axes
        if not outer:
            for_flat(
                inner.extent,
                self.lanes,
                lambda i, n: body(i, [i if m else 0 for m in inner.moves], n),
            )
            return
        with parallel(prod(axis.extent for axis in outer)) as row:
            starts = [bind(self._start(row, k)) for k in range(len(inner.moves))]

            def chunk(i: Expr, n: int) -> None:
                own = [s + i if m else s for s, m in zip(starts, inner.moves, strict=True)]
                body(row * inner.extent + i, own, n)

            for_chunks(inner.extent, self.lanes, chunk)

    def _start(self, row: Expr, operand: int) -> Expr:
        """Flat index of an operand's first element in a row of the result."""
        *outer, inner = self.axes
        shape = tuple(axis.extent for axis in outer)
        own = tuple(axis.extent if axis.moves[operand] else 1 for axis in outer)
        place = broadcast_index(names.MULTIPLY, shape, own)
        return place(row) * (inner.extent if inner.moves[operand] else 1)
