"""From global to shared memory, 16 bytes at a time where they lie together.

A tile in shared memory is rows of `chunk` bytes whose 16-byte pieces are permuted (`Layout`), so
that neither the copies nor ``ldmatrix`` meet in one bank. Rows behind the last one repeat it, and
pieces behind the last one repeat that: what they give is not stored, or is multiplied by the zeros
that pad the weights.
"""

from dataclasses import dataclass

from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.emit import (
    Buffer,
    Expr,
    Shared,
    address,
    ceil_div,
    each_item,
    flat,
    index,
    put,
    serial,
)
from vitq.compiler.kernels.cuda.tile import PIECE
from vitq.compiler.kernels.tensor import TensorType

GROUP = 32
"""Columns of four 8-column fragments that one thread holds 8 neighbouring columns of."""


@dataclass(frozen=True)
class Layout:
    """Rows of a tile in shared memory.

    Attributes:
        chunk: bytes of a row.
        grouped: rows are read as `grouped_row` gives them, else in order.
    """

    chunk: int
    grouped: bool

    @property
    def pieces(self) -> int:
        """Pieces of a row."""
        return self.chunk // PIECE

    def offset(self, row: Expr, piece: Expr) -> Expr:
        """Byte offset of a piece: pieces that are read together lie in different banks."""
        if self.pieces == 4:
            turn = (row // 8) % 4 if self.grouped else (row // 2) % 4
        elif self.grouped:
            turn = (row // 8) % 4 * 2 + row % 2
        else:
            turn = row % 8 if self.pieces >= 8 else (row // (8 // self.pieces)) % self.pieces
        return row * self.chunk + (piece ^ turn) * PIECE


def grouped_row(fragment: Expr, row: Expr) -> Expr:
    """Row of a group of 32 that is row `row` of 8-row fragment `fragment`.

    A thread holds columns 2 t and 2 t + 1 of each result fragment. With this order the four
    fragments of a group give it columns 8 t to 8 t + 7: one store.
    """
    return row // 2 * 8 + fragment * 2 + row % 2


class Source:
    """A matrix of bytes in global memory.

    Attributes:
        rows: how many.
        inner: bytes of a row.
        copies: whether pieces are 16 bytes that lie together, aligned.
    """

    rows: int
    inner: int
    copies: bool

    def copy(self, to: Expr, row: Expr, piece: Expr) -> None:
        """Copy one piece to an address in shared memory."""
        raise NotImplementedError

    def byte(self, row: Expr, column: Expr) -> Expr:
        """One byte."""
        raise NotImplementedError


class Rows(Source):
    """A matrix whose rows lie one behind the other."""

    def __init__(self, buffer: Buffer, matrix: TensorType) -> None:
        """See the memory as bytes."""
        self.rows, self.inner = matrix.shape
        self.copies = self.inner % PIECE == 0
        self.data = flat(buffer)

    def copy(self, to: Expr, row: Expr, piece: Expr) -> None:
        """See `Source`."""
        intrinsics.copy16(to, address(self.data, row * self.inner + piece * PIECE))

    def byte(self, row: Expr, column: Expr) -> Expr:
        """See `Source`."""
        return self.data[row * self.inner + column]


class MovedRows(Source):
    """Rows of (B, R, K) that a table (M,) names, the same for each of B."""

    def __init__(self, buffer: Buffer, tensor: TensorType, table: Buffer, moved: int) -> None:
        """See the memory as bytes."""
        batch, self.source, self.inner = tensor.shape
        self.rows, self.moved = batch * moved, moved
        self.copies = self.inner % PIECE == 0
        self.data, self.table = flat(buffer), flat(table)

    def _at(self, row: Expr, column: Expr) -> Expr:
        place = self.table[row % self.moved] + row // self.moved * self.source
        return place * self.inner + column

    def copy(self, to: Expr, row: Expr, piece: Expr) -> None:
        """See `Source`."""
        intrinsics.copy16(to, address(self.data, self._at(row, piece * PIECE)))

    def byte(self, row: Expr, column: Expr) -> Expr:
        """See `Source`."""
        return self.data[self._at(row, column)]


class Patches(Source):
    """Patches of pictures (B, C, H, W), channels first, straight from the pixels."""

    def __init__(self, buffer: Buffer, pixels: TensorType, patch: int) -> None:
        """See the pixels as one axis."""
        batch, self.channels, self.height, self.width = pixels.shape
        self.patch, self.across = patch, self.width // patch
        self.down = self.height // patch
        self.rows, self.inner = batch * self.down * self.across, self.channels * patch * patch
        self.copies = patch % PIECE == 0 and self.width % PIECE == 0
        self.data = flat(buffer)

    def _at(self, row: Expr, column: Expr) -> Expr:
        patch, area = self.patch, self.patch * self.patch
        image, place = row // (self.down * self.across), row % (self.down * self.across)
        y = place // self.across * patch + column % area // patch
        x = place % self.across * patch + column % patch
        return ((image * self.channels + column // area) * self.height + y) * self.width + x

    def copy(self, to: Expr, row: Expr, piece: Expr) -> None:
        """See `Source`."""
        intrinsics.copy16(to, address(self.data, self._at(row, index(piece * PIECE))))

    def byte(self, row: Expr, column: Expr) -> Expr:
        """See `Source`."""
        return self.data[self._at(row, column)]


@dataclass(frozen=True)
class Loader:
    """Loads a tile of some rows, one piece of K for each group of warps.

    Attributes:
        source: where from.
        layout: in shared memory.
        rows: of the tile.
        first: row of the source.
        groups: pieces of K in a stage.
        permuted: whether rows of the tile are those that `grouped_row` gives for it.
    """

    source: Source
    layout: Layout
    rows: int
    first: Expr
    groups: int
    permuted: bool = False

    @property
    def size(self) -> int:
        """Bytes of the tile."""
        return self.rows * self.layout.chunk * self.groups

    def emit(self, shared: Shared, base: Expr, turn: Expr, thread: Expr, threads: int) -> None:
        """Load the tile of one turn of the main loop.

        Args:
            shared: memory.
            base: byte offset of the tile.
            turn: of the main loop.
            thread: of the block.
            threads: of the block.
        """
        pieces = self.layout.pieces
        total = self.rows * pieces * self.groups
        for item in each_item(total, thread, threads):
            part = index(item // pieces)
            row, group = index(part % self.rows), index(part // self.rows)
            to = base + (group * self.rows) * self.layout.chunk
            to = index(to + self.layout.offset(row, item % pieces))
            piece = index((turn * self.groups + group) * pieces + item % pieces)
            if self.permuted:
                row = row // GROUP * GROUP + grouped_row(row % GROUP // 8, row % 8)
            row = index(tirx.min(self.first + row, self.source.rows - 1))
            self._piece(shared, to, row, piece)

    def _piece(self, shared: Shared, to: Expr, row: Expr, piece: Expr) -> None:
        source = self.source
        if source.copies:
            last = ceil_div(source.inner, PIECE) - 1
            source.copy(address(shared.bytes, to), row, index(tirx.min(piece, last)))
            return
        with serial(PIECE) as i:
            column = index(tirx.min(piece * PIECE + i, source.inner - 1))
            put(shared.bytes, to + i, source.byte(row, column))
