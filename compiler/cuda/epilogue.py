"""From accumulators to stored codes, in registers.

A thread holds 8 neighbouring columns of each of its rows (`compiler.cuda.loading.grouped_row`).
For each channel one 16-byte load gives multiplier, shift and the addend of bias, rounding constant
and zero point: ``code = clamp((acc * m + addend) >> s)``. Then a residual may be added or GELU
taken, and 8 codes are one store.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from compiler.cuda.arith import Add, Gelu, packed, rescaled, unpacked
from compiler.cuda.emit import (
    BYTES,
    WORD_BYTES,
    Buffer,
    Expr,
    clamp,
    const,
    flat,
    get,
    get_many,
    index,
    keep,
    put,
    put_many,
    registers,
    when,
    wide,
)
from compiler.cuda.loading import GROUP
from compiler.cuda.mainloop import FRAGMENT_M, FRAGMENT_N, Place
from compiler.cuda.tile import Tile
from compiler.kernels.types import Kernel
from numerics.arrays import IntArray
from numerics.dyadic import ACC_LIMIT, Dyadic, addend

RUN = 8
"""Neighbouring columns of a thread."""
CHANNEL_WORDS = 4
LARGEST_INPUT = 255
WORD = 32


def pack_channels(weight: IntArray, constants: Mapping[int, IntArray]) -> tuple[bool, IntArray]:
    """Arrange a layer's constants.

    Args:
        weight: (N, K).
        constants: bias (2), multiplier, shift, zero point (5).

    Returns:
        Whether all results fit into int32 before they are clamped, and (N, 4) int32: multiplier,
        shift, both halves of the addend.
    """
    bias, multiplier, shift, zero = (constants[i].astype(np.int64) for i in range(2, 6))
    add = addend(bias, Dyadic(multiplier, shift), 0) + (zero << shift)
    sums = [LARGEST_INPUT * int(total) for total in np.abs(weight.astype(np.int64)).sum(axis=1)]
    narrow = all(
        (acc * abs(int(m)) + abs(int(b))) >> int(s) < ACC_LIMIT
        for acc, m, b, s in zip(sums, multiplier, add, shift, strict=True)
    )
    low = (add & (2**WORD - 1)).astype(np.uint32).view(np.int32)
    words = np.stack([multiplier, shift, low, add >> WORD], axis=1)
    return narrow, words.astype(np.int32)


class Epilogue:
    """Finishes one block's tile."""

    def __init__(
        self,
        kernel: Kernel,
        tile: Tile,
        buffers: Sequence[Buffer],
        first: tuple[Expr, Expr],
        place: Place,
    ) -> None:
        """Read what is the same for all channels.

        Args:
            kernel: what is computed.
            tile: its schedule.
            buffers: channels' constants, bounds, the second step's inputs, the output.
            first: row and column of the block.
            place: of the thread.
        """
        self.kernel, self.tile, self.place, self.first = kernel, tile, place, first
        channels, limits, *more, out = buffers
        self.rows, self.columns = kernel.out.rows.shape
        self.channels, self.out = flat(channels), out
        self.low, self.high = get(limits, 0), get(limits, 1)
        self.residual: Buffer | None = None
        self.add: Add | None = None
        self.gelu: Gelu | None = None
        if kernel.name == "linear_add":
            self.residual, self.add = more[0], Add(more[1])
        elif kernel.name == "linear_gelu":
            self.gelu = Gelu(more[0], kernel.spec.twin)

    def emit(self, acc: Buffer) -> None:
        """Code for all accumulators of the thread; groups of warps behind the first do nothing."""
        tile, place = self.tile, self.place
        with when(True if tile.split_k == 1 else place.group < 1):
            for group in range(tile.warp_n // GROUP):
                column = place.column + group * GROUP + place.lane % 4 * RUN
                column = index(self.first[1] + column)
                with when(True if self.columns % tile.block_n == 0 else column < self.columns):
                    self._group(acc, group, column)

    def _group(self, acc: Buffer, group: int, column: Expr) -> None:
        """All rows of 8 columns."""
        tile, fragments = self.tile, self.tile.warp_n // FRAGMENT_N
        whole = self.columns % RUN == 0
        constants = [self._channel(column + c, whole) for c in range(RUN)]
        for i in range(tile.warp_m // FRAGMENT_M):
            for half in range(2):
                row = self.place.row + i * FRAGMENT_M + half * 8 + self.place.lane // 4
                row = index(self.first[0] + row)
                with when(True if self.rows % tile.block_m == 0 else row < self.rows):
                    base = 4 * (i * fragments + group * 4)
                    values = [acc[base + c // 2 * 4 + half * 2 + c % 2] for c in range(RUN)]
                    codes = [self._code(v, k) for v, k in zip(values, constants, strict=True)]
                    self._finish(codes, index(row * self.columns + column), column, whole)

    def _channel(self, column: Expr, whole: bool) -> tuple[Expr, Expr, Expr]:
        """Multiplier, addend and shift as int64; channels that do not exist repeat the last one."""
        if not whole:
            column = keep_index(column, self.columns)
        words = get_many(self.channels, column * CHANNEL_WORDS, CHANNEL_WORDS)
        mask = const(2**WORD - 1, "int64")
        add = keep((wide(words[3]) << const(WORD, "int64")) | (wide(words[2]) & mask))
        return keep(wide(words[0])), add, keep(wide(words[1]))

    def _code(self, acc: Expr, channel: tuple[Expr, Expr, Expr]) -> Expr:
        multiplier, add, shift = channel
        value = rescaled(acc, multiplier, add, shift)
        if self.kernel.spec.narrow:
            return clamp(value.astype("int32"), self.low, self.high)
        return keep(clamp(value, wide(self.low), wide(self.high)).astype("int32"))

    def _finish(self, codes: list[Expr], at: Expr, column: Expr, whole: bool) -> None:
        """The second step, and the store of 8 columns at a flat element index."""
        dtype = self.kernel.out.dtype
        if not whole:
            out = flat(self.out)
            for c, code in enumerate(codes):
                with when(column + c < self.columns):
                    put(out, at + c, self._second(code, self._residual(at + c)))
            return
        residuals = self._residuals(at)
        done = [self._second(code, r) for code, r in zip(codes, residuals, strict=True)]
        per_word = WORD_BYTES // BYTES[dtype]
        count = RUN // per_word
        words = registers(count)
        for w in range(count):
            part = done[w * per_word : (w + 1) * per_word]
            put(words, w, packed(part, 8 * BYTES[dtype]) if per_word > 1 else part[0])
        target = flat(self.out, "int32")
        for first in range(0, count, 4):
            piece = registers(min(4, count))
            for i in range(min(4, count)):
                put(piece, i, words[first + i])
            put_many(target, index(at // per_word) + first, piece, min(4, count))

    def _second(self, code: Expr, residual: Expr | None) -> Expr:
        if self.add is not None:
            return self.add(code, residual)
        return self.gelu(code) if self.gelu is not None else code

    def _residual(self, at: Expr) -> Expr | None:
        if self.residual is None:
            return None
        return keep(flat(self.residual)[at].astype("int32"))

    def _residuals(self, at: Expr) -> list[Expr | None]:
        """Of 8 columns, with as few loads as their type allows."""
        if self.residual is None:
            return [None] * RUN
        dtype = str(self.residual.ty.dtype)
        per_word = WORD_BYTES // BYTES[dtype]
        words = get_many(flat(self.residual, "int32"), index(at // per_word), RUN // per_word)
        return [unpacked(words[c // per_word], c % per_word, dtype) for c in range(RUN)]


def keep_index(column: Expr, count: int) -> Expr:
    """A column that exists."""
    from tvm import tirx

    return index(tirx.min(column, count - 1))
