"""float32 matrix products for the comparison with TVM, by the same builder as our own kernels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    load,
    parallel,
    serial,
    splat,
    store,
)
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.table import Target
from vitq.numerics.arrays import FloatArray

WIDE_TILES = ((8, 3), (6, 4), (12, 2))
"""(rows, columns) for 32 vector registers: accumulators, one weight for each column, one value."""
NARROW_TILES = ((4, 3), (6, 2))
"""For 16 registers."""


ARM_BITS = 128


def registers_of(target: Target) -> tuple[int, int]:
    """Bits and number of a processor's vector registers."""
    if "aarch64" in target.needs:  # where a kernel's vector is four registers
        return ARM_BITS, 32
    bits = target.cpu.vector_bits
    return bits, 32 if bits >= 512 else 16


@dataclass(frozen=True)
class Gemm:
    """``(batch, rows, inner) x (batch, inner, columns)``; equal ones share a kernel.

    Attributes:
        batch: independent products.
        rows: M.
        inner: K.
        columns: N.
        packed: the right operand is `pack_weights`'s, of one batch.
        vector_bits: of a register.
        registers: how many of them the processor has.
    """

    batch: int
    rows: int
    inner: int
    columns: int
    packed: bool
    vector_bits: int
    registers: int

    @property
    def lanes(self) -> int:
        """Columns in one register; of few columns, one by one."""
        lanes = self.vector_bits // 32
        return lanes if self.columns >= lanes else 1

    @property
    def groups(self) -> int:
        """Registers that hold a row of the result; the last one overlaps the one before."""
        return -(-self.columns // self.lanes)

    def tile(self) -> tuple[int, int]:
        """Rows and groups held in registers: the one that leaves the fewest groups over."""
        tiles = WIDE_TILES if self.registers >= 32 else NARROW_TILES
        return min(tiles, key=lambda tile: (self.groups % tile[1], tiles.index(tile)))


def pack_weights(weight: FloatArray, lanes: int) -> FloatArray:
    """(K, N) float32 -> (groups, K, lanes), the last group with the last `lanes` columns."""
    columns = weight.shape[1]
    lanes = lanes if columns >= lanes else 1
    starts = [min(g * lanes, columns - lanes) for g in range(-(-columns // lanes))]
    return np.ascontiguousarray(np.stack([weight[:, s : s + lanes] for s in starts]))


def gemm_kernel(gemm: Gemm, name: str) -> Any:
    """Return the PrimFunc: a (batch, rows, inner), b, out (batch, rows, columns)."""
    a = TensorType((gemm.batch, gemm.rows, gemm.inner), "float32")
    plain = (gemm.batch, gemm.inner, gemm.columns)
    b = TensorType((gemm.groups, gemm.inner, gemm.lanes) if gemm.packed else plain, "float32")
    out = TensorType((gemm.batch, gemm.rows, gemm.columns), "float32")

    def body(x: Buffer, weights: Buffer, result: Buffer) -> None:
        _, columns = gemm.tile()
        whole, rest = divmod(gemm.groups, columns)
        if whole:
            with parallel(gemm.batch * whole) as i:
                image, group = bind(i // whole), bind(i % whole * columns)
                _rows(gemm, columns, image, group, (x, weights, result))
        if rest:
            with parallel(gemm.batch) as image:
                _rows(gemm, rest, image, whole * columns, (x, weights, result))

    return build(name, (a, b), out, body)


def _rows(
    gemm: Gemm, columns: int, image: Expr, group: Expr, buffers: tuple[Buffer, Buffer, Buffer]
) -> None:
    """All rows of some groups of columns."""
    height, _ = gemm.tile()
    if gemm.rows // height:
        with serial(gemm.rows // height) as i:
            _tile(gemm, (height, columns), (image, i * height, group), buffers)
    if rest := gemm.rows % height:
        _tile(gemm, (rest, columns), (image, gemm.rows - rest, group), buffers)


def _tile(
    gemm: Gemm,
    tile: tuple[int, int],
    origin: tuple[Expr, Expr, Expr],
    buffers: tuple[Buffer, Buffer, Buffer],
) -> None:
    """Accumulators in registers over the whole inner dimension."""
    x, weights, result = buffers
    image, row, group = origin
    rows, columns, lanes = range(tile[0]), range(tile[1]), gemm.lanes
    starts = [bind(tirx.min((group + c) * lanes, gemm.columns - lanes)) for c in columns]
    acc = [[alloc((lanes,), "float32") for _ in columns] for _ in rows]
    for r in rows:
        for c in columns:
            store(acc[r][c], splat(tirx.const(0.0, "float32"), lanes), 0)
    with serial(gemm.inner) as k:
        if gemm.packed:
            b = [load(weights, group + c, k, 0, lanes=lanes) for c in columns]
        else:
            b = [load(weights, image, k, starts[c], lanes=lanes) for c in columns]
        for r in rows:
            a = splat(load(x, image, row + r, k), lanes)
            for c in columns:
                store(acc[r][c], load(acc[r][c], 0, lanes=lanes) + a * b[c], 0)
    for r in rows:
        for c in columns:
            store(result, load(acc[r][c], 0, lanes=lanes), image, row + r, starts[c])
