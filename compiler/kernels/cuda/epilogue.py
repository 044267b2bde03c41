"""From accumulators to stored codes, in registers.

A thread holds 8 neighbouring columns of each of its rows
(`compiler.kernels.cuda.loading.grouped_row`). For each channel one 16-byte load gives multiplier,
shift and the addend of bias, rounding constant and zero point: ``code = clamp((acc * m + addend) >>
s)``. Then a residual may be added or GELU taken, and 8 codes are one store. What is read lies in
shared memory by then (`compiler.kernels.cuda.staging`).

Every instruction counts here: a product of K = 192 has no more than a few cycles for an element.
Where all shifts are at least 32 (`Forms.up`), only the upper word of the 64-bit sum is shifted;
where the codes' bounds are those of their type (`Forms.saturate`), the instruction that packs them
clamps them; GELU is a look-up (`compiler.kernels.cuda.gelu_table`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import Add, FoldedAdd, Gelu, rescaled
from vitq.compiler.kernels.cuda.codes import load_codes, store_codes
from vitq.compiler.kernels.cuda.emit import (
    WORD_BITS,
    WORD_BYTES,
    Buffer,
    Expr,
    Shared,
    as_word,
    clamp,
    const,
    flat,
    get,
    index,
    keep,
    put,
    when,
    wide,
)
from vitq.compiler.kernels.cuda.gelu_table import LookUp
from vitq.compiler.kernels.cuda.mainloop import MainLoop
from vitq.compiler.kernels.cuda.staging import RUN, Runs, Staging
from vitq.compiler.kernels.cuda.tile import Needs, Tile
from vitq.compiler.kernels.kernel import Kernel
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic, addend

LARGEST_INPUT = 255
MORE = 4
"""Input of a kernel that is the second step's first: a residual, or a GELU's table."""
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


def needs_of(kernel: Kernel) -> Needs:
    """Return what a kernel's epilogue reads from shared memory."""
    if kernel.spec.bucket_bits:
        return Needs(table=WORD_BYTES * kernel.inputs[MORE].size)
    if not kernel.name.endswith("linear_add") or kernel.out.shape[-1] % RUN:
        return Needs()
    return Needs(residual=2 if kernel.inputs[MORE].dtype == "int16" else 0)


class Epilogue:
    """Finishes one block's tile."""

    def __init__(
        self, kernel: Kernel, tile: Tile, buffers: Sequence[Buffer], shared: Shared, loop: MainLoop
    ) -> None:
        """Sizes and places.

        Args:
            kernel: what is computed.
            tile: its schedule.
            buffers: channels' constants, bounds, the second step's inputs, the output.
            shared: the block's memory.
            loop: the products.
        """
        self.kernel = kernel
        self.channels, self.limits, *self.more, self.out = buffers
        self.needs = needs_of(kernel)
        self.runs = Runs(tile, loop.place, loop.first, kernel.out.rows.shape)
        self.staging = Staging(tile, self.needs, shared, loop.thread, self.runs, loop.free)
        self.forms: Forms = kernel.spec.forms
        self.whole = self.runs.columns % RUN == 0
        self.packing_clamps = self.forms.saturate and not self.needs.table

    def fetch_constants(self) -> None:
        """Read bounds and the second step's constants, and begin to copy all others."""
        self.staging.fetch_channels(self.channels)
        if self.needs.table:
            self.staging.fetch_table(self.more[0])
        self.low, self.high = get(self.limits, 0), get(self.limits, 1)
        self._start_second()

    def fetch_inputs(self) -> None:
        """Begin to copy what is added to the results."""
        if self.needs.residual:
            self.staging.fetch_residual(self.more[0])

    def emit(self, acc: Buffer) -> None:
        """Code for all accumulators of the thread."""
        if self.needs.residual:
            intrinsics.wait(0)
        with when(self.runs.are_here):
            for group in self.runs.groups:
                intrinsics.sync_warp()  # else constants of all groups are loaded at once, and spill
                column = self.runs.column(group)
                with when(self.runs.has_column(column)):
                    self._group(acc, group, column)

    def _group(self, acc: Buffer, group: int, column: Expr) -> None:
        """All rows of 8 columns; those behind the last row are computed, too, but not stored."""
        constants = [self.staging.channel(group, c) for c in range(RUN)]
        for number, base, row in self.runs.of_group(group):
            values = [acc[base + c // 2 * 4 + c % 2] for c in range(RUN)]
            codes = [self._code(v, k) for v, k in zip(values, constants, strict=True)]
            at = index(row * self.runs.columns + column)
            if self.needs.residual:
                codes = self._second(codes, self.staging.residuals(number))
            elif self.whole and self.residual is None:
                codes = self._second(codes, [None] * RUN)
            with when(self.runs.has_row(row)):
                if self.whole:
                    if self.residual is not None and not self.needs.residual:
                        codes = self._second(codes, load_codes(self.residual, at, RUN))
                    store_codes(self.out, at, codes, self.packing_clamps)
                else:
                    self._store_each(codes, at, column)

    def _start_second(self) -> None:
        """Read what the second step needs."""
        kernel, spec = self.kernel, self.kernel.spec
        self.residual: Buffer | None = None
        self.second: Callable[[Expr, Expr], Expr] = lambda code, residual: code
        if kernel.name.endswith("linear_add"):
            self.residual = self.more[0]
            folded = FoldedAdd(self.more[1], self.forms.saturate)
            self.second = folded if spec.folded else Add(self.more[1])
        elif spec.bucket_bits:
            first = self.staging.table // WORD_BYTES
            look = LookUp(self.staging.words, first, spec.bucket_bits)
            self.second = lambda code, residual: look(code)
        elif kernel.name == "linear_gelu":
            gelu = Gelu(self.more[0], spec.twin)
            self.second = lambda code, residual: gelu(code)

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
        if self.needs.table:
            return keep(intrinsics.limit(value, self.high))
        only = self.kernel.name in ("linear", "gather_linear", "patch_embed")
        return value if only and self.forms.saturate else clamp(value, self.low, self.high)

    def _second(self, codes: list[Expr], residuals: Sequence[Expr | None]) -> list[Expr]:
        """Return the second step for a run."""
        return [self.second(code, r) for code, r in zip(codes, residuals, strict=True)]

    def _store_each(self, codes: list[Expr], at: Expr, column: Expr) -> None:
        """Return the second step and the store, one by one: a run that the last column may cut."""
        out = flat(self.out)
        for c, code in enumerate(codes):
            with when(column + c < self.runs.columns):
                other = None if self.residual is None else as_word(flat(self.residual)[at + c])
                put(out, at + c, self._limited(self.second(code, other)))

    def _limited(self, code: Expr) -> Expr:
        """Compute a code that is stored alone, so that no packing clamps it."""
        if not self.packing_clamps:
            return code
        info = np.iinfo(self.kernel.out.dtype)
        return clamp(code, const(int(info.min)), const(int(info.max)))
