"""The 8-bit dot product primitives behind every matrix product.

A primitive turns a register of int32 accumulators (one output channel in each lane), one row's
next `depth` activations and the same `depth` weights of each lane into new accumulators. All that
depends on the instruction set is here:

* ``vnni512``: AVX512-VNNI ``vpdpbusd``, unsigned x signed, depth 4. Signed activations are
  stored with their top bit flipped, which adds 128 to each; the product is then too large by
  128 * sum(weights), which the kernels fold into a constant of the channel.
* ``generic``: widening multiply-add in int32, depth 1, which LLVM vectorizes for any target.

Packed weights are ``(groups, steps, lanes * depth)`` int8, see `Dot.pack`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from compiler.kernels.builder import (
    Buffer,
    Expr,
    T,
    bind,
    cast,
    const,
    load,
    reinterpret,
    splat,
)
from compiler.kernels.types import CpuFeatures
from numerics.arrays import IntArray


@dataclass(frozen=True)
class Dot(ABC):
    """A dot product primitive.

    Attributes:
        lanes: int32 accumulators in one register.
        depth: products summed in one step.
        registers: vector registers of the instruction set.
        a_offset: added to signed activations when they are stored for this primitive.
        b_signed: whether weights must be signed (unsigned ones are stored minus 128).
        split: how `compiler.kernels.arith` holds 64-bit products.
    """

    lanes: int
    depth: int
    registers: int
    a_offset: int
    b_signed: bool
    split: bool

    @abstractmethod
    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """A register with one row's `depth` activations in every lane."""

    @abstractmethod
    def weights(self, packed: Buffer, group: Expr, step: Expr) -> Expr:
        """A register of packed weights."""

    @abstractmethod
    def ones(self) -> Expr:
        """Weights of 1: with them a row's products add up to the row's sum, in every lane."""

    @abstractmethod
    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """Accumulators plus products."""

    def groups(self, channels: int) -> int:
        """Registers that hold this many channels."""
        return -(-channels // self.lanes)

    def steps(self, inner: int) -> int:
        """Steps that cover this many products."""
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


class Vnni512(Dot):
    """AVX512-VNNI."""

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """Four bytes as one int32, broadcast."""
        word = reinterpret(load(rows, row, step * 4, lanes=4), "int32")
        return bind(reinterpret(splat(word, 16), "int8x64"))

    def weights(self, packed: Buffer, group: Expr, step: Expr) -> Expr:
        """64 bytes."""
        return load(packed, group, step, 0, lanes=64)

    def ones(self) -> Expr:
        """64 bytes."""
        return const(1, "int8", 64)

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One vpdpbusd; LLVM 22 declares its operands as vectors of bytes."""
        return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", acc, a, b)


class Generic(Dot):
    """Plain multiply-add."""

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """One value, widened and broadcast."""
        return bind(splat(cast(load(rows, row, step), "int32"), self.lanes))

    def weights(self, packed: Buffer, group: Expr, step: Expr) -> Expr:
        """One value for each lane, widened."""
        return bind(cast(load(packed, group, step, 0, lanes=self.lanes), "int32"))

    def ones(self) -> Expr:
        """One value for each lane."""
        return const(1, "int32", self.lanes)

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One multiplication and one addition in each lane."""
        return acc + a * b


def dot_for(features: CpuFeatures) -> Dot:
    """The primitive for a processor."""
    if features.dot == "vnni512":
        return Vnni512(16, 4, 32, a_offset=128, b_signed=True, split=True)
    return Generic(features.lanes, 1, 16, a_offset=0, b_signed=False, split=False)
