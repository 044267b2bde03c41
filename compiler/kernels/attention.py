"""Fused attention: q k^T, Shiftmax codes, codes V and the normalization, for each head.

qkv is (B, N, 3, H, D), out (B, N, H, D). For each (batch, head), in parallel: Q is staged, K and
V are packed for the dot product primitive. Then a block of rows at a time goes through both
products; only that block's scores (int32) and codes (uint8) are ever in memory. The result has
the same bits as the separate operators: a term that is constant along a row of scores cancels in
Shiftmax, so that K's zero point is not needed.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from compiler.kernels.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    build,
    cast,
    const,
    load,
    parallel,
    reduce_lanes,
    reinterpret,
    serial,
    splat,
    store,
)
from compiler.kernels.dot import Dot, dot_for
from compiler.kernels.fixed import Halves512, halves_for
from compiler.kernels.microkernel import (
    Epilogue,
    Product,
    choose_tile,
    emit_product,
    stage_rows,
    store_lanes,
)
from compiler.kernels.packing import (
    emit_column_sums,
    pack_columns,
    pack_rows,
    stored_zero_point,
)
from compiler.kernels.scaling import Rescale, rescale_constants
from compiler.kernels.softmax import (
    LOWEST,
    Normalize,
    NormalizeSpec,
    emit_codes,
    emit_codes_64,
    emit_row_maximum,
    normalize_spec,
)
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.shiftmax import CODE_LIMIT, CODE_MAX

WIDE_CODES = 64


def lower_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.attention``: qkv (B, N, 3, H, D), params -> (B, N, H, D)."""
    params = constants[1].astype(np.int64)
    zeros = params[:3].copy()
    rescale = rescale_constants(int(params[3]), int(params[4]), CODE_LIMIT)
    norm = params[5:].copy()
    inputs = (operands[0], tensor_of(zeros), tensor_of(rescale), tensor_of(norm))
    spec = normalize_spec(norm, CODE_MAX * operands[0].shape[1])
    return KernelCall(_attention_kernel(inputs, out, spec, features), (0, zeros, rescale, norm))


@dataclass(frozen=True)
class _Head:
    """What the row blocks of one head share."""

    scores: Product
    values: Product
    tokens: int
    width: int
    block: int
    octaves: Rescale
    normalize: Normalize
    v_zero: Expr
    halves: Halves512 | None


@functools.cache
def _attention_kernel(
    inputs: tuple[TensorType, ...], out: TensorType, spec: NormalizeSpec, features: CpuFeatures
) -> Any:
    dot = dot_for(features)
    batch, tokens, _, heads, width = inputs[0].shape

    def body(qkv: Buffer, zeros: Buffer, rescale: Buffer, norm: Buffer, result: Buffer) -> None:
        octaves = Rescale(rescale, dot.split)
        normalize = Normalize(norm, spec, dot.split)
        q_zero = bind(cast(load(zeros, 0), "int32"))
        v_zero = bind(cast(load(zeros, 2), "int32"))
        with parallel(batch * heads) as i:
            b, h = bind(i // heads), bind(i % heads)

            def part(index: int) -> Any:
                return lambda n, d, lanes: load(qkv, b, n, index, h, d, lanes=lanes)

            dtype = inputs[0].dtype
            scores = _score_product(part, (tokens, width), dtype, q_zero, dot)
            packed = pack_columns(part(2), tokens, width, dtype, dot)
            block = choose_tile(dot, tokens, dot.groups(width)).rows
            codes = alloc((block, dot.groups(tokens) * dot.lanes), "uint8")
            head = _Head(
                scores,
                Product(dot, codes, packed, dot.steps(tokens)),
                tokens,
                width,
                block,
                octaves,
                normalize,
                stored_zero_point(v_zero, dtype, dot, weights=True),
                halves_for(features),
            )

            def write(row: Expr, column: Expr, value: Expr, valid: int) -> None:
                store_lanes(result, value, valid, b, row, h, column)

            _emit_blocks(head, write)

    return build("attention", inputs, out, body)


def _score_product(
    part: Any, shape: tuple[int, int], dtype: str, q_zero: Expr, dot: Dot
) -> Product:
    """Stage Q and pack K; accumulators start at -q_zp sum(k), at `LOWEST` in missing lanes."""
    tokens, width = shape
    staged = stage_rows(part(0), tokens, width, dtype, dot, serial)
    packed = pack_rows(part(1), tokens, width, dtype, dot)
    groups, lanes, steps = dot.groups(tokens), dot.lanes, dot.steps(width)
    start = alloc((groups, lanes), "int32")
    zero = stored_zero_point(q_zero, dtype, dot, weights=False)
    with serial(groups) as g:
        total = emit_column_sums(packed, g, steps, dot)
        store(start, total * splat(0 - zero, lanes), g, 0)
    for lane in range(tokens - (groups - 1) * lanes, lanes):
        store(start, const(LOWEST, "int32"), groups - 1, lane)
    return Product(dot, staged, packed, steps, lambda g: load(start, g, 0, lanes=lanes))


def _emit_blocks(head: _Head, write: Any) -> None:
    rows = head.block
    if head.tokens // rows:
        with serial(head.tokens // rows) as i:
            _emit_block(head, rows, i * rows, write)
    if rest := head.tokens % rows:
        _emit_block(head, rest, head.tokens - rest, write)


def _emit_block(head: _Head, rows: int, first: Expr, write: Any) -> None:
    """One block of rows through both products."""
    dot = head.scores.dot
    lanes, groups = dot.lanes, dot.groups(head.tokens)
    scores = alloc((head.block, groups * lanes), "int32")
    multipliers, totals = alloc((rows,), "int32"), alloc((rows,), "int32")

    def keep(row: Expr, group: Expr, acc: Expr) -> None:
        store(scores, acc, row - first, group * lanes)

    emit_product(head.scores, rows, groups * lanes, lambda _: keep, serial, first)
    with serial(rows) as r:
        total = _emit_row_codes(head, scores, r, groups)
        store(totals, total, r)
        store(multipliers, head.normalize.multiplier(total), r)

    def epilogue(valid: int) -> Epilogue:
        def finish(row: Expr, group: Expr, acc: Expr) -> None:
            centred = bind(acc - splat(load(totals, row) * head.v_zero, lanes))
            value = head.normalize(centred, load(multipliers, row))
            write(first + row, group * lanes, value, valid)

        return finish

    emit_product(head.values, rows, head.width, epilogue, serial)


def _emit_row_codes(head: _Head, scores: Buffer, row: Expr, groups: int) -> Expr:
    """Write one row's codes, 0 beyond the last token; returns their sum."""
    dot, lanes = head.scores.dot, head.scores.dot.lanes
    top = splat(emit_row_maximum(scores, row, groups * lanes, lanes), lanes)
    acc = alloc((lanes,), "int32")
    store(acc, const(0, "int32", lanes), 0)

    def emit(group: Expr, valid: int) -> None:
        score = load(scores, row, group * lanes, lanes=lanes)
        codes = emit_codes(top - score, head.octaves)
        if valid < lanes:
            exists = tirx.Ramp(0, 1, lanes) < splat(const(valid, "int32"), lanes)
            codes = bind(tirx.Select(exists, codes, const(0, "int32", lanes)))
        store(head.values.rows, codes, row, group * lanes)
        store(acc, load(acc, 0, lanes=lanes) + codes, 0)

    def emit_wide(block: Expr, halves: Halves512) -> None:
        at = [block * WIDE_CODES + i * lanes for i in range(WIDE_CODES // lanes)]
        distances = [bind(top - load(scores, row, i, lanes=lanes)) for i in at]
        codes = emit_codes_64(distances, head.octaves, halves)
        store(head.values.rows, reinterpret(codes, "uint8x64"), row, block * WIDE_CODES)
        store(acc, dot.accumulate(load(acc, 0, lanes=lanes), codes, dot.ones()), 0)

    blocks = head.tokens // WIDE_CODES if head.halves else 0
    if head.halves and blocks:
        with serial(blocks) as block:
            emit_wide(block, head.halves)
    done = blocks * WIDE_CODES // lanes
    full = head.tokens // lanes - done
    if full:
        with serial(full) as g:
            emit(done + g, lanes)
    if head.tokens % lanes:
        emit(groups - 1, head.tokens % lanes)
    return reduce_lanes(load(acc, 0, lanes=lanes), "add")
