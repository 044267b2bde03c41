"""The 8-bit dot product primitives of x86-64, and the plain one for any processor."""

from vitq.compiler.kernels.cpu.builder import (
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
from vitq.compiler.kernels.cpu.dot import Dot


class Vnni(Dot):
    """AVX512-VNNI, or AVX-VNNI in half as many lanes."""

    def stored(self, dtype: str, weights: bool) -> str:
        """Bytes."""
        return "int8" if weights else dtype

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """Four bytes as one int32, broadcast."""
        word = reinterpret(load(rows, row, step * 4, lanes=4), "int32")
        return bind(reinterpret(splat(word, self.lanes), f"int8x{4 * self.lanes}"))

    def ones(self) -> Expr:
        """Return a register of bytes."""
        return const(1, "int8", 4 * self.lanes)

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One vpdpbusd; LLVM 22 declares its operands as vectors of bytes."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return T.call_llvm_pure_intrin(f"int32x{self.lanes}", name, acc, a, b)


class Madd(Dot):
    """Multiply-add of 16-bit pairs, AVX2's or SSE2's."""

    def stored(self, dtype: str, weights: bool) -> str:
        """Words; constant weights stay bytes."""
        return "int16"

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """Two words as one int32, broadcast."""
        word = reinterpret(load(rows, row, step * 2, lanes=2), "int32")
        return bind(reinterpret(splat(word, self.lanes), f"int16x{2 * self.lanes}"))

    def operand(self, weights: Expr) -> Expr:
        """Return a register of words, widened where they are constants."""
        return bind(cast(weights, "int16"))

    def ones(self) -> Expr:
        """Return a register of words."""
        return const(1, "int16", 2 * self.lanes)

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One vpmaddwd, exact for 8-bit values of any sign, and one addition."""
        name = "llvm.x86.avx2.pmadd.wd" if self.lanes == 8 else "llvm.x86.sse2.pmadd.wd"
        return acc + bind(T.call_llvm_pure_intrin(f"int32x{self.lanes}", name, a, b))


class Generic(Dot):
    """Plain multiply-add."""

    def stored(self, dtype: str, weights: bool) -> str:
        """As they are."""
        return dtype

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """One value, widened and broadcast."""
        return bind(splat(cast(load(rows, row, step), "int32"), self.lanes))

    def operand(self, weights: Expr) -> Expr:
        """One value for each lane, widened."""
        return bind(cast(weights, "int32"))

    def ones(self) -> Expr:
        """One value for each lane."""
        return const(1, "int32", self.lanes)

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One multiplication and one addition in each lane."""
        return acc + a * b
