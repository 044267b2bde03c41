"""Fused attention: q k^T, Shiftmax codes, codes V and the normalization, for each head.

qkv is (B, N, 3, H, D), out (B, N, H, D). For each (batch, head), in parallel: K and V are packed
for the dot product primitive. Then a block of rows at a time goes through both products
(`compiler.kernels.cpu.attention_rows`); only that block's scores (int32) and codes are in memory.
The result has the same bits as the separate operators: a term that is constant along a row of
scores cancels in Shiftmax, so that K's zero point is not needed.

Constants are added to the scores as they leave the registers: rows of whole registers, so that a
missing token's is `LOWEST`.

All blocks have the same number of rows: the last one begins earlier and repeats some rows of the
one before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.attention_rows import Block, PackedCodes, PlainCodes, RowCodes
from vitq.compiler.kernels.cpu.attention_tiles import Operands, largest_columns
from vitq.compiler.kernels.cpu.blocking import CACHE_LINE
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    T,
    alloc,
    bind,
    cast,
    const,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.dot_x86 import Vnni
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.fixed import Halves
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.cpu.microkernel import Tile, alloc_staged, pad_staged, store_staged
from vitq.compiler.kernels.cpu.octaves import HalfOctaves, half_constants, settled
from vitq.compiler.kernels.cpu.packing import (
    emit_column_sums,
    offset_sums,
    pack_columns,
    pack_rows,
    stored_zero_point,
)
from vitq.compiler.kernels.cpu.scaling import Rescale, rescale_constants
from vitq.compiler.kernels.cpu.softmax import (
    LOWEST,
    CodeSpec,
    Normalize,
    NormalizeSpec,
    code_spec,
    normalize_spec,
)
from vitq.compiler.kernels.cpu.transpose import can_transpose, pack_transposed
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import QkvShape
from vitq.numerics.dyadic import rescale as rescaled
from vitq.numerics.dyadic import scalar_dyadic
from vitq.numerics.shiftmax import CODE_MAX, CodeParams

PARTS = (3, 3 + len(CodeParams._fields))
"""Where AttentionParams' integers of the weights begin and end."""

FEW_TOKENS = 64
"""Of a head that is one block: with AVX-512 rows hide each other's latency; AVX2 gains nothing."""


@dataclass(frozen=True)
class AttentionSpec:
    """Static facts about the constants.

    Attributes:
        normalize: about the division.
        half: octaves are made in 16 bits; otherwise in 64.
        far: a missing token's score is so low that its code is 0 without a mask.
        codes: about the weights.
    """

    normalize: NormalizeSpec
    half: bool
    far: bool
    codes: CodeSpec


def lower_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.attention``: qkv (B, N, 3, H, D), params -> (B, N, H, D)."""
    spec, packed = _prepare(operands[0], constants[1], 0, features)
    inputs = (operands[0], *(tensor_of(array) for array in packed))
    return KernelCall(Kernel(ATTENTION, inputs, out, features, spec), (0, *packed))


def lower_offset_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.offset_attention``: qkv, offsets (G, N, N), index (W, H), params -> (B, N, H, D)."""
    offsets, dot = constants[1].astype(np.int32), dot_for(features)
    lowest = int(offsets.max(axis=-1).min())  # of a row's maximum
    spec, packed = _prepare(operands[0], constants[3], lowest, features)
    tokens = offsets.shape[-1]
    missing = (0, 0), (0, 0), (0, dot.groups(tokens) * dot.lanes - tokens)
    rows = np.pad(offsets, missing, constant_values=LOWEST)
    packed = (*packed, rows, constants[2].astype(np.int32))
    inputs = (operands[0], *(tensor_of(array) for array in packed))
    return KernelCall(Kernel(OFFSET_ATTENTION, inputs, out, features, spec), (0, *packed))


def _prepare(
    qkv: TensorType, params: IntArray, lowest: int, features: CpuFeatures
) -> tuple[AttentionSpec, tuple[IntArray, ...]]:
    """Return static facts, and zero points, octaves and normalization as the kernel reads them."""
    zeros, codes, norm = (part.copy() for part in np.split(params.astype(np.int64), PARTS))
    p = CodeParams(*(int(v) for v in codes))
    half = half_constants(p) if halves_for(features) else None
    octaves = rescale_constants(p.multiplier, p.shift, p.limit) if half is None else half
    shape = QkvShape.of(qkv.shape)
    far = _is_far(p, shape.width, lowest)
    normalize = normalize_spec(norm, CODE_MAX * shape.tokens)
    return AttentionSpec(normalize, half is not None, far, code_spec(p)), (zeros, octaves, norm)


def _is_far(p: CodeParams, width: int, lowest: int) -> bool:
    """Whether `LOWEST` has the code 0 beside every score of `width` products and `lowest`."""
    first, last_code = settled(p)
    nearest = np.asarray(lowest - LOWEST - width * 2**16, np.int64)
    return last_code == 0 and int(rescaled(nearest, scalar_dyadic(p.multiplier, p.shift))) >= first


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    """Rows of both tiles, value tiles in a block, and parts of one head's rows.

    A score tile as wide as the row (few rows) takes the maximum in registers. Each part of a head
    packs K and V again, which pays only where the heads do not occupy all threads.
    """
    dot = dot_for(kernel.features)
    batch, tokens, heads, width = QkvShape.of(kernel.inputs[0].shape)
    tall = tuple(r for r in (1, 2, 3, 4, 5, 6, 8) if r <= tokens and largest_columns(dot, r))
    wide = dot.lanes * dot.depth == CACHE_LINE
    parts = tuple(p for p in (1, 2, 4, 8) if p == 1 or p * 16 <= tokens)
    return {
        "score_rows": Knob(tall, _best_rows(dot, tall, dot.groups(tokens))),
        "value_rows": Knob(tall, _best_rows(dot, tall, dot.groups(width))),
        "value_tiles": Knob((1, 2, 4, 8), 8 if wide and tokens <= FEW_TOKENS else 1),
        "parts": Knob(parts, parts[batch * heads % 2 if len(parts) > 1 else 0]),
    }


def _best_rows(dot: Dot, choices: tuple[int, ...], groups: int) -> int:
    """Choose the most rows with the fewest slots for each: products, loads, and their latency."""

    def cost(rows: int) -> tuple[float, int, int]:
        pieces = -(-groups // largest_columns(dot, rows))
        columns = -(-groups // pieces)
        step = max(rows * columns, rows + columns, 2 * dot.latency)
        return pieces * step / rows, pieces, -rows

    return min(choices, key=cost)


def _attention_body(
    kernel: Kernel,
    schedule: Schedule,
    qkv: Buffer,
    zeros: Buffer,
    octaves: Buffer,
    norm: Buffer,
    *rest: Buffer,
) -> None:
    *constants, result = rest
    batch, _, heads, _ = QkvShape.of(kernel.inputs[0].shape)
    work = _Attention(kernel, schedule)
    q_zero, v_zero = (bind(cast(load(zeros, i), "int32")) for i in (0, 2))
    codes = work.row_codes(octaves)
    normalize = Normalize(norm, kernel.spec.normalize, work.dot.split)
    parts = schedule["parts"]
    with parallel(batch * heads * parts) as i:
        b, h = bind(i // (heads * parts)), bind(i // parts % heads)

        def part(index: int) -> Any:
            return lambda n, d, lanes: load(qkv, b, n, index, h, d, lanes=lanes)

        head = work.prepare(part, codes, normalize, (q_zero, v_zero))

        def write(row: Expr, group: Expr, value: Expr) -> None:
            work.write(value, group, lambda c, part: store(result, part, b, row, h, c))

        added = work.added(constants, b, h) if constants else None
        work.emit_part(head, part(0), bind(i % parts), write, added)


ATTENTION = Template("attention", _attention_body, _knobs)
OFFSET_ATTENTION = Template("offset_attention", _attention_body, _knobs)


class _Attention:
    """Static sizes of one kernel, and the code around its blocks."""

    def __init__(self, kernel: Kernel, schedule: Schedule) -> None:
        self.dot = dot = dot_for(kernel.features)
        self.kernel, self.parts = kernel, schedule["parts"]
        self.dtype = kernel.inputs[0].dtype
        _, self.tokens, _, self.width = QkvShape.of(kernel.inputs[0].shape)
        rows = schedule["score_rows"], schedule["value_rows"]
        self.tiles = tuple(Tile(r, largest_columns(dot, r)) for r in rows)
        self.rows = min(self.tokens, schedule["value_rows"] * schedule["value_tiles"])

    def row_codes(self, octaves: Buffer) -> RowCodes:
        """How codes are made."""
        spec, dot = self.kernel.spec, self.dot
        halves = halves_for(self.kernel.features)
        if halves is None:
            return PlainCodes(dot, self.tokens, Rescale(octaves, dot.split), spec.codes)
        kind = HalfOctaves(octaves, halves) if spec.half else Rescale(octaves, dot.split)
        return PackedCodes(dot, self.tokens, kind, spec.codes, halves, masks=not spec.far)

    def prepare(
        self, part: Any, codes: RowCodes, normalize: Normalize, zeros: tuple[Expr, Expr]
    ) -> Block:
        """Pack K and V of a head.

        Args:
            part: reads q, k or v.
            codes: makes codes.
            normalize: divides.
            zeros: zero points of q and v.
        """
        dot, tokens, width = self.dot, self.tokens, self.width
        if can_transpose(dot, width, self.dtype):
            keys = pack_transposed(part(1), tokens, width, dot)
        else:
            keys = pack_rows(part(1), tokens, width, self.dtype, dot)
        start = self._start(keys, stored_zero_point(zeros[0], self.dtype, dot, weights=False))
        values = pack_columns(part(2), tokens, width, self.dtype, dot)
        steps = dot.steps(width)
        staged = alloc_staged(self.rows, width, self.dtype, dot)
        stored = alloc_staged(self.rows, codes.width, "uint8", dot)
        return Block(
            dot,
            Operands(staged, keys, steps, start),
            Operands(stored, values, dot.steps(tokens), offset_sums(values, "uint8", dot)),
            (self.tiles[0], self.tiles[1]),
            self.rows,
            codes,
            normalize,
            stored_zero_point(zeros[1], self.dtype, dot, weights=True),
            dot.groups(width),
            self.packs_bytes(),
        )

    def _start(self, keys: Buffer, zero: Expr) -> Buffer:
        """Where scores start: at -q_zp sum(k), at `LOWEST` in missing lanes (constants are it)."""
        dot = self.dot
        groups, lanes = dot.groups(self.tokens), dot.lanes
        start = alloc((groups, lanes), "int32")
        with serial(groups) as g:
            total = emit_column_sums(keys, g, dot.steps(self.width), dot)
            store(start, total * splat(0 - zero, lanes), g, 0)
        present = self.tokens - (groups - 1) * lanes
        for lane in range(present if self.kernel.template is ATTENTION else lanes, lanes):
            store(start, const(LOWEST, "int32"), groups - 1, lane)
        return start

    def added(self, constants: Sequence[Buffer], batch: Expr, head: Expr) -> Any:
        """Read what is added to a register of scores, at a row and a group."""
        offsets, index = constants
        windows, lanes = self.kernel.inputs[-1].shape[0], self.dot.lanes
        which = bind(load(index, batch % windows, head))
        return lambda row, group: load(offsets, which, row, group * lanes, lanes=lanes)

    def emit_part(self, head: Block, query: Any, part: Expr, write: Any, added: Any) -> None:
        """Every block of one part of a head's rows."""
        blocks = -(-self.tokens // self.rows)
        each = -(-blocks // self.parts)
        count = each if blocks == each * self.parts else tirx.min(each, blocks - part * each)
        scores = head.scratch()
        with T.serial(0, tirx.max(count, 0)) as i:
            at = (part * each + i) * self.rows
            first = bind(tirx.min(at, self.tokens - self.rows))
            self._stage(query, first, head.scores.rows)
            head.emit(
                scores,
                lambda row, group, value: write(first + row, group, value),
                None if added is None else lambda row, group: added(first + row, group),
            )

    def _stage(self, query: Any, first: Expr, staged: Buffer) -> None:
        """Copy a block of Q as the primitive reads it: flipped or widened, and padded."""
        dot, width = self.dot, self.width
        with serial(self.rows) as r:

            def copy(i: Expr, lanes: int) -> None:
                store_staged(staged, query(first + r, i, lanes), self.dtype, dot, r, i)

            for_chunks(width, min(4 * dot.lanes, width), copy)
            pad_staged(staged, r, width, dot)

    def write(self, value: Expr, group: Expr, put: Any) -> None:
        """Hand over a register of channels, one by one where some register is not full."""
        lanes = self.dot.lanes
        first = group * lanes
        if self.width % lanes == 0:
            put(first, value)
            return
        scratch = alloc((lanes,), "int32")
        store(scratch, value, 0)
        with T.serial(0, tirx.min(lanes, self.width - first)) as i:
            put(first + i, load(scratch, i))

    def packs_bytes(self) -> Halves | None:
        """16-bit lanes for whole registers of results, as x86 packs them."""
        whole = self.width % self.dot.lanes == 0 and self.kernel.out.dtype == "int8"
        if not whole or not self.kernel.spec.normalize.high or not isinstance(self.dot, Vnni):
            return None
        return halves_for(self.kernel.features)
