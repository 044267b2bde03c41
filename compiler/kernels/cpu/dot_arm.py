"""The 8-bit dot product primitives of ARM's 128-bit vectors.

A group is 16 channels, four registers: its packed weights then are whole registers, and so is its
row of 8-bit results. All primitives are signed x signed; unsigned activations are stored minus 128
(`Dot.offset`) where the processor cannot mix signs.

* ``sdot`` (FEAT_DotProd), depth 4. A register holds four steps of a row, and the instruction
  takes one of them by its index, so that nothing is broadcast.
* ``smmla`` (FEAT_I8MM), depth 8: two rows times two channels in one instruction; ``usmmla`` where
  activations are unsigned. An accumulator is the 2 x 2 tiles of two rows and 16 channels.
* ``neon``, depth 4, for processors without either: 16-bit products, added in pairs to 32-bit lanes
  (``sadalp``). Two products may be summed in 16 bits (``smlal``) unless both weights are -128,
  2 * 128 * 128 = 2**15; `Neon.sums_pairs` says that constant weights were checked for that.
"""

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.arm_tile import REGISTER, WORDS, Arm
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    T,
    bind,
    cast,
    const,
    join,
    lanes_of,
    load,
    piece,
    reinterpret,
    store,
    typed,
)
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray

GROUP = 16
LOWEST_WEIGHT = -128


def repeat(value: Expr, index: int, lanes: int) -> Expr:
    """One of `lanes` lanes in all of a register, as bytes."""
    lane = value if lanes == 1 else bind(tirx.Shuffle([value], [index]))
    bits = int(str(lane.ty.dtype).removeprefix("int"))
    return bind(reinterpret(bind(tirx.Broadcast(lane, 128 // bits)), "int8x16"))


@dataclass(frozen=True)
class Sdot(Arm):
    """Signed dot products of four."""

    def row_steps(self, rows: Buffer, row: Expr, step: Expr, count: int) -> list[Expr]:
        """Load a register with all steps, each of them broadcast."""
        codes = load(rows, row, step * 4, lanes=4 * count)
        words = bind(reinterpret(codes, typed("int32", count)))
        return [repeat(words, i, count) for i in range(count)]

    def multiply(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One sdot."""
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return bind(T.call_llvm_pure_intrin("int32x4", name, acc, b, a))


@dataclass(frozen=True)
class Smmla(Arm):
    """Products of 2 x 8 by 8 x 2 matrices.

    Activations are stored as pairs of rows, (row // 2, step, row % 2, 8).
    """

    def offset(self, dtype: str) -> int:
        """Signs may be mixed."""
        return 0

    def rows_shape(self, rows: int, inner: int) -> tuple[int, int]:
        """Pairs of rows, the last one half empty."""
        return -(-rows // 2), REGISTER * self.steps(inner)

    def store_row(self, rows: Buffer, value: Expr, row: Expr, column: Expr) -> None:
        """Eight at a time, or one where a piece could cross from one eight to the next."""
        lanes = min(lanes_of(value), 8)
        if 8 % lanes or lanes_of(value) % lanes:
            lanes = 1
        for i in range(lanes_of(value) // lanes):
            place = column + i * lanes
            at = (row // 2, place // 8 * 16 + row % 2 * 8 + place % 8)
            store(rows, piece(value, i, lanes), *at)

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """One row's eight bytes, twice."""
        codes = load(rows, row // 2, step * REGISTER + row % 2 * 8, lanes=8)
        return join([codes, codes])

    def row_steps(self, rows: Buffer, row: Expr, step: Expr, count: int) -> list[Expr]:
        """Load a register of both rows for each step."""
        at = [(step + i) * REGISTER for i in range(count)]
        return [load(rows, row // 2, i, lanes=REGISTER) for i in at]

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One row: the other half of each tile is thrown away."""
        pairs = [piece(acc, i, 2) for i in range(self.lanes // 2)]
        parts = zip(pairs, self.parts(b), strict=True)
        products = [self.multiply(join([pair, pair]), a, part) for pair, part in parts]
        return join([piece(product, 0, 2) for product in products])

    def multiply(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One smmla or usmmla."""
        kind = "usmmla" if "uint8" in str(a.ty.dtype) else "smmla"
        name = f"llvm.aarch64.neon.{kind}.v4i32.v16i8"
        return bind(T.call_llvm_pure_intrin("int32x4", name, acc, a, b))


@dataclass(frozen=True)
class Neon(Arm):
    """16-bit products.

    Attributes:
        sums_pairs: two products fit 16 bits, see `pairs_fit`.
    """

    sums_pairs: bool = False

    def sum_codes(self, acc: Expr, codes: Expr) -> Expr:
        """By uaddlp and uadalp."""
        sums = []
        for i in range(WORDS):
            words = piece(codes, i, REGISTER)
            for shape in ("int16x8", "int32x4"):
                before = "v16i8" if shape == "int16x8" else "v8i16"
                after = "v8i16" if shape == "int16x8" else "v4i32"
                name = f"llvm.aarch64.neon.uaddlp.{after}.{before}"
                words = bind(T.call_llvm_pure_intrin(shape, name, words))
            sums.append(bind(piece(acc, i, WORDS) + words))
        return join(sums)

    def ones_row(self) -> Expr:
        """Both halves."""
        return (const(1, "int8", REGISTER),) * 2

    def row_steps(self, rows: Buffer, row: Expr, step: Expr, count: int) -> list[Expr]:
        """For each step its first two bytes, eight times, and its last two."""
        codes = load(rows, row, step * 4, lanes=4 * count)
        words = bind(reinterpret(codes, typed("int16", 2 * count)))
        halves = [repeat(words, i, 2 * count) for i in range(2 * count)]
        return list(zip(halves[::2], halves[1::2], strict=True))

    def parts(self, b: Expr) -> list[Expr]:
        """Take the first two bytes of four channels and the last two, and say where they are."""
        parts: list[Expr] = []
        words = [bind(reinterpret(part, "int16x8")) for part in super().parts(b)]
        for pair in zip(words[::2], words[1::2], strict=True):
            orders = [list(range(first, 16, 2)) for first in (0, 1)]
            sorted_words = [bind(tirx.Shuffle(list(pair), order)) for order in orders]
            low, high = (bind(reinterpret(part, "int8x16")) for part in sorted_words)
            parts += [(low, high, 0), (low, high, 1)]
        return parts

    def multiply(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """By smull, smlal and sadalp; without smlal another smull and sadalp."""
        *weights, half = b
        low, high = (
            bind(_widened(w, half) * _widened(x, half)) for w, x in zip(weights, a, strict=True)
        )
        for products in [bind(low + high)] if self.sums_pairs else [low, high]:
            name = "llvm.aarch64.neon.saddlp.v4i32.v8i16"
            acc = bind(acc + bind(T.call_llvm_pure_intrin("int32x4", name, products)))
        return acc


def _widened(value: Expr, half: int) -> Expr:
    """Eight bytes of a register as 16-bit lanes."""
    return bind(cast(piece(value, half, 8), "int16"))


def pairs_fit(packed: IntArray) -> bool:
    """Whether two products of `Neon` fit 16 bits, whatever the activations are.

    Args:
        packed: weights, from `Dot.pack`.

    Returns:
        False if bytes that `Neon.multiply` pairs (0 with 2, 1 with 3) are both -128.
    """
    words = packed.reshape(-1, 2, 2) == LOWEST_WEIGHT
    return not bool(np.any(words[:, 0] & words[:, 1]))


def arm_dot(features: CpuFeatures) -> Arm:
    """Return the primitive for a processor; `features.dot` is one of `ARM_PRIMITIVES`."""
    if features.dot == "smmla":
        return Smmla(GROUP, 8, 4, 0, True, spare=0, latency=1, rows=2, chunk=4)
    if features.dot == "sdot":
        return Sdot(GROUP, 4, 8, 0, True, spare=1, latency=1, chunk=4)
    pairs = features.dot == "neon-pairs"
    return Neon(GROUP, 4, 8, 0, True, spare=3, latency=1, chunk=1, sums_pairs=pairs)
