"""From accumulators to stored codes, in registers.

A thread holds 8 neighbouring columns of each of its rows (`compiler.cuda.loading.grouped_row`).
For each channel one 16-byte load gives multiplier, shift and the addend of bias, rounding constant
and zero point: ``code = clamp((acc * m + addend) >> s)``. Then a residual may be added or GELU
taken, and 8 codes are one store.

Every instruction counts here: a product of K = 192 has no more than a few cycles for an element.
Where all shifts are at least 32 (`Forms.up`), only the upper word of the 64-bit sum is shifted;
where the codes' bounds are those of their type (`Forms.saturate`), the instruction that packs them
clamps them; GELU is a look-up (`compiler.cuda.gelu_table`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tvm import tirx

from compiler.cuda import intrinsics
from compiler.cuda.arith import Add, FoldedAdd, Gelu, rescaled
from compiler.cuda.codes import load_codes, store_codes
from compiler.cuda.emit import (
    WORD_BITS,
    WORD_BYTES,
    Buffer,
    Expr,
    Shared,
    address,
    as_word,
    ceil_div,
    clamp,
    const,
    flat,
    get,
    get_many,
    index,
    keep,
    put,
    when,
    wide,
)
from compiler.cuda.gelu_table import LookUp
from compiler.cuda.loading import GROUP
from compiler.cuda.mainloop import FRAGMENT_N, Place
from compiler.cuda.tile import FRAGMENT_M, PIECE, Tile
from compiler.kernels.types import Kernel
from numerics.arrays import IntArray
from numerics.dyadic import ACC_LIMIT, Dyadic, addend

RUN = 8
"""Neighbouring columns of a thread."""
CHANNEL_WORDS = 4
LARGEST_INPUT = 255
TABLE = 4
"""Input of a kernel that is a GELU's table."""
ADDEND_LIMIT = 2**62


class Forms(NamedTuple):
    """Which shorter code computes a layer's codes exactly.

    Attributes:
        narrow: codes before their clamp are proven to fit into int32.
        up: by how much sums are shifted up so that all shifts become at least 32, and 32 is taken
            off the stored ones; None where that does not fit.
        saturate: the result's bounds are its type's.
    """

    narrow: bool
    up: int | None
    saturate: bool


def pack_channels(
    weight: IntArray, constants: Mapping[int, IntArray], low: int = 0
) -> tuple[bool, int | None, IntArray]:
    """Arrange a layer's constants.

    Args:
        weight: (N, K).
        constants: bias (2), multiplier, shift, zero point (5).
        low: what is subtracted from all codes.

    Returns:
        `Forms.narrow`, `Forms.up`, and (N, 4) int32: multiplier, shift, both halves of the addend.
    """
    bias, multiplier, shift, zero = (constants[i].astype(np.int64) for i in range(2, 6))
    add = addend(bias, Dyadic(multiplier, shift), 0) + ((zero - low) << shift)
    sums = [LARGEST_INPUT * int(total) for total in np.abs(weight.astype(np.int64)).sum(axis=1)]
    narrow = all(
        (acc * abs(int(m)) + abs(int(b))) >> int(s) < ACC_LIMIT
        for acc, m, b, s in zip(sums, multiplier, add, shift, strict=True)
    )
    up = max(WORD_BITS - int(shift.min()), 0)
    fits = max(sums) << up < ACC_LIMIT and int(np.abs(add).max()) << up < ADDEND_LIMIT
    if fits:
        add, shift = add << up, shift + (up - WORD_BITS)
    words = (add & (2**WORD_BITS - 1)).astype(np.uint32).view(np.int32)
    packed_words = np.stack([multiplier, shift, words, add >> WORD_BITS], axis=1).astype(np.int32)
    return narrow, up if fits else None, packed_words


def table_bytes(kernel: Kernel) -> int:
    """Shared memory of a GELU's table; 0 without one."""
    return WORD_BYTES * kernel.inputs[TABLE].size if kernel.spec.bucket_bits else 0


class Epilogue:
    """Finishes one block's tile."""

    def __init__(
        self,
        kernel: Kernel,
        tile: Tile,
        buffers: Sequence[Buffer],
        first: tuple[Expr, Expr],
        shared: Shared,
    ) -> None:
        """Sizes.

        Args:
            kernel: what is computed.
            tile: its schedule.
            buffers: channels' constants, bounds, the second step's inputs, the output.
            first: row and column of the block.
            shared: memory; behind the tile's own there is room for a table of a GELU.
        """
        self.kernel, self.tile, self.first, self.shared = kernel, tile, first, shared
        channels, self.limits, *self.more, self.out = buffers
        self.rows, self.columns = kernel.out.rows.shape
        self.channels = flat(channels)
        self.forms: Forms = kernel.spec.forms

    def fetch(self, thread: Expr) -> None:
        """Begin to copy a table; it is there when the main loop is done."""
        if not self.kernel.spec.bucket_bits:
            return
        table, pieces = flat(self.more[0]), table_bytes(self.kernel) // PIECE
        for step in range(ceil_div(pieces, self.tile.threads)):
            item = index(thread + step * self.tile.threads)
            whole = (step + 1) * self.tile.threads <= pieces
            with when(True if whole else item < pieces):
                to = address(self.shared.bytes, item * PIECE + self.tile.shared_bytes)
                intrinsics.copy16(to, address(table, item * (PIECE // WORD_BYTES)))

    def emit(self, acc: Buffer, place: Place) -> None:
        """Code for all accumulators of the thread; groups of warps behind the first do nothing."""
        tile, self.place = self.tile, place
        self.low, self.high = get(self.limits, 0), get(self.limits, 1)
        self._start_second()
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
                row = self.place.row + i * tile.fragment_rows + half * 8 + self.place.lane // 4
                row = index(self.first[0] + row)
                with when(True if self.rows % tile.block_m == 0 else row < self.rows):
                    base = 4 * (i * fragments + group * 4)
                    values = [acc[base + c // 2 * 4 + half * 2 + c % 2] for c in range(RUN)]
                    codes = [self._code(v, k) for v, k in zip(values, constants, strict=True)]
                    self._finish(codes, index(row * self.columns + column), column, whole)

    def _start_second(self) -> None:
        """Read what the second step needs."""
        kernel, spec = self.kernel, self.kernel.spec
        self.residual: Buffer | None = None
        self.second: Callable[[Expr, Expr], Expr] = lambda code, residual: code
        if kernel.name == "linear_add":
            self.residual = self.more[0]
            folded = FoldedAdd(self.more[1], self.forms.saturate)
            self.second = folded if spec.folded else Add(self.more[1])
        elif spec.bucket_bits:
            first = self.tile.shared_bytes // WORD_BYTES
            look = LookUp(self.shared.view("int32"), first, spec.bucket_bits)
            self.second = lambda code, residual: look(code)
        elif kernel.name == "linear_gelu":
            gelu = Gelu(self.more[0], spec.twin)
            self.second = lambda code, residual: gelu(code)

    def _channel(self, column: Expr, whole: bool) -> list[Expr]:
        """Four words of a channel; those that do not exist repeat the last one."""
        if not whole:
            column = index(tirx.min(column, self.columns - 1))
        words = get_many(self.channels, column * CHANNEL_WORDS, CHANNEL_WORDS)
        return [words[i] for i in range(CHANNEL_WORDS)]

    def _code(self, acc: Expr, channel: list[Expr]) -> Expr:
        multiplier, shift, low, high = channel
        if self.forms.up is not None:
            total = acc << const(self.forms.up) if self.forms.up else acc
            value = keep(intrinsics.mad_high(total, multiplier, low, high) >> shift)
        else:
            mask = const(2**WORD_BITS - 1, "int64")
            add = keep((wide(high) << const(WORD_BITS, "int64")) | (wide(low) & mask))
            value = rescaled(acc, wide(multiplier), add, wide(shift))
            if not self.forms.narrow:
                return keep(clamp(value, wide(self.low), wide(self.high)).astype("int32"))
            value = as_word(value)
        only = self.kernel.name in ("linear", "patch_embed")
        return value if only and self.forms.saturate else clamp(value, self.low, self.high)

    def _finish(self, codes: list[Expr], at: Expr, column: Expr, whole: bool) -> None:
        """The second step, and the store of 8 columns at a flat element index."""
        if not whole:
            out = flat(self.out)
            for c, code in enumerate(codes):
                with when(column + c < self.columns):
                    put(out, at + c, self._limited(self.second(code, self._residual(at + c))))
            return
        residuals = self._residuals(at)
        done = [self.second(code, r) for code, r in zip(codes, residuals, strict=True)]
        saturate = self.forms.saturate and not self.kernel.spec.bucket_bits
        store_codes(self.out, at, done, saturate)

    def _limited(self, code: Expr) -> Expr:
        """A code that is stored alone, so that no packing clamps it."""
        if not self.forms.saturate or self.kernel.spec.bucket_bits:
            return code
        info = np.iinfo(self.kernel.out.dtype)
        return clamp(code, const(int(info.min)), const(int(info.max)))

    def _residual(self, at: Expr) -> Expr | None:
        if self.residual is None:
            return None
        return as_word(flat(self.residual)[at])

    def _residuals(self, at: Expr) -> list[Expr | None]:
        """Of 8 columns, with as few loads as their type allows."""
        if self.residual is None:
            return [None] * RUN
        return list(load_codes(self.residual, at, RUN))
