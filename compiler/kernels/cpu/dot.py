"""The 8-bit dot product primitives behind every matrix product.

A primitive turns a register of int32 accumulators (one output channel in each lane), one row's
next `depth` activations and the same `depth` weights of each lane into new accumulators. All that
depends on the instruction set is here:

* ``vnni512``, ``vnni256``: ``vpdpbusd`` of AVX512-VNNI and AVX-VNNI, unsigned x signed, depth 4.
  Signed activations are stored with their top bit flipped, which adds 128 to each; the product is
  then too large by 128 * sum(weights), which the kernels fold into a constant of the channel.
* ``madd256``, ``madd128``: ``vpmaddwd`` of AVX2 and SSE2, depth 2, on values widened to 16 bits.
  AVX2's 8-bit ``vpmaddubsw`` saturates, 255 * 127 * 2 is beyond 16 bits.
* ``generic``: widening multiply-add in int32, depth 1, which LLVM vectorizes for any target.

Packed weights are ``(groups, steps, lanes * depth)`` int8, see `Dot.pack`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    load,
    reinterpret,
    store,
    typed,
)
from vitq.numerics.arrays import IntArray

Weights = Callable[[Expr, Expr, int], Expr]
"""Reads a group's weights at a step and a constant number of steps further."""
PORTS = 2
"""Dot products, and as many loads, that start in one cycle."""


@dataclass(frozen=True)
class Dot(ABC):
    """A dot product primitive.

    Attributes:
        lanes: int32 accumulators in one register.
        depth: products summed in one step.
        registers: vector registers of the instruction set.
        a_offset: added to signed activations when they are stored for this primitive.
        b_signed: whether weights must be signed (unsigned ones are stored minus 128).
        split: how `compiler.kernels.cpu.arith` holds 64-bit products.
        spare: registers of a tile besides its accumulators and weights.
        latency: cycles until an accumulator can be used again.
        rows: rows that share accumulators; a tile has a multiple of them, or all rows.
    """

    lanes: int
    depth: int
    registers: int
    a_offset: int
    b_signed: bool
    split: bool = False
    spare: int = 1
    latency: int = 1
    rows: int = 1

    @abstractmethod
    def stored(self, dtype: str, weights: bool) -> str:
        """Return the type of staged activations, or of weights packed at run time."""

    @abstractmethod
    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """Load a register with one row's `depth` activations in every lane."""

    def weights(self, packed: Buffer, group: Expr, step: Expr) -> Expr:
        """Load a register of packed weights, as they are multiplied."""
        return self.operand(load(packed, group, step, 0, lanes=self.lanes * self.depth))

    def operand(self, weights: Expr) -> Expr:
        """Return a register of weights as they are multiplied; by default as they are stored."""
        return weights

    @abstractmethod
    def ones(self) -> Expr:
        """Weights of 1: with them a row's products add up to the row's sum, in every lane."""

    @abstractmethod
    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """Accumulators plus products."""

    def rows_shape(self, rows: int, inner: int) -> tuple[int, int]:
        """Shape of activations as stored for this primitive."""
        return rows, self.steps(inner) * self.depth

    def store_row(self, rows: Buffer, value: Expr, row: Expr, column: Expr) -> None:
        """Store elements of one row; `column` is a multiple of their number."""
        store(rows, value, row, column)

    def slots(self, rows: int, columns: int) -> float:
        """Estimated cost of one step of a tile: products, loads if more, an accumulator's latency.

        Args:
            rows: of the tile, in units of `Dot.rows`.
            columns: groups of the tile.
        """
        return max(rows * columns, rows + columns, PORTS * self.latency)

    def own_tile(
        self,
        rows: Buffer,
        weights: Weights,
        steps: tuple[int, int],
        size: tuple[int, int],
        at: tuple[Expr, Expr],
        start: Callable[[Expr], Expr] | None,
    ) -> list[list[Expr]] | None:
        """Return the accumulators of a register tile, of primitives that have a loop of their own.

        Args:
            rows: activations as stored.
            weights: called with a group, a step, and how many steps further.
            steps: of the inner dimension, and those that `weights` wants to be asked for together.
            size: rows and groups of the tile.
            at: its first row (even if the tile's rows are) and group.
            start: initial accumulators of a group, or None for zeros.

        Returns:
            Accumulators by row and group; None for the ordinary loop.
        """
        return None

    def sum_codes(self, acc: Expr, codes: Expr) -> Expr:
        """Lanes that add up to those of `acc` and a vector of unsigned codes."""
        signed = "int8" if self.depth == 4 else "int16"
        operand = bind(reinterpret(codes, typed(signed, self.depth * self.lanes)))
        return self.accumulate(acc, operand, self.ones())

    def offset(self, dtype: str) -> int:
        """Return what is added to activations of a type when they are stored for this primitive."""
        return self.a_offset if dtype == "int8" else 0

    def ones_row(self) -> Expr:
        """Activations of 1: with them weights add up to the column's sum."""
        return self.ones()

    def groups(self, channels: int) -> int:
        """Count the registers that hold this many channels."""
        return -(-channels // self.lanes)

    def steps(self, inner: int) -> int:
        """Count the steps that cover this many products."""
        return -(-inner // self.depth)

    def pack(self, weight: IntArray) -> IntArray:
        """Arrange constant weights.

        Args:
            weight: (N, K) int8.

        Returns:
            (groups, steps, lanes * depth) int8; missing channels and products are 0.
        """
        n, k = weight.shape
        groups, steps = self.groups(n), self.steps(k)
        padded = np.zeros((groups * self.lanes, steps * self.depth), np.int8)
        padded[:n, :k] = weight
        tiles = padded.reshape(groups, self.lanes, steps, self.depth).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(tiles).reshape(groups, steps, self.lanes * self.depth)
