"""Integer arithmetic of the contract as TIR expressions, elementwise on scalars or vectors.

The central one is the 32 x 32 -> 64 bit multiplication. AVX-512 and AVX2 multiply the even int32
lanes of a register (``vpmuldq``), so with `split` a product is held as two int64 vectors, the even
and the odd lanes, and the high halves are joined again by one shift and one bitwise select. Without
`split` (scalars, other instruction sets) it is one int64 vector in lane order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    T,
    bind,
    cast,
    const,
    lanes_of,
    load,
    reinterpret,
    splat,
)
from vitq.numerics.arrays import IntArray

PERMUTE = {16: "llvm.x86.avx512.permvar.si.512", 8: "llvm.x86.avx2.permd"}
HIGH_HALF = -(1 << 32)
LOW_HALF = (1 << 32) - 1


@dataclass(frozen=True)
class Wide:
    """A vector of int64: one part in lane order, or two, the even and the odd lanes."""

    parts: tuple[Expr, ...]

    def map(self, function: Callable[[Expr], Expr]) -> "Wide":
        """Apply an elementwise function to every part."""
        return Wide(tuple(bind(function(part)) for part in self.parts))

    def zip(self, other: "Wide", function: Callable[[Expr, Expr], Expr]) -> "Wide":
        """Apply an elementwise function to corresponding parts."""
        return Wide(
            tuple(bind(function(a, b)) for a, b in zip(self.parts, other.parts, strict=True))
        )

    def low(self) -> Expr:
        """Return the low 32 bits of each lane as int32, in lane order."""
        if len(self.parts) == 1:
            return bind(cast(self.parts[0], "int32"))
        even, odd = self.parts
        return _join((even & _mask(LOW_HALF, even)) | (odd << 32))

    def high(self) -> Expr:
        """Return the high 32 bits of each lane as int32, in lane order."""
        if len(self.parts) == 1:
            return bind(cast(self.parts[0] >> 32, "int32"))
        even, odd = self.parts
        return _join(_shift_down(even) | (odd & _mask(HIGH_HALF, odd)))


def _mask(bits: int, like: Expr) -> Expr:
    return const(bits, "int64", lanes_of(like))


def _join(words: Expr) -> Expr:
    return bind(reinterpret(words, f"int32x{2 * lanes_of(words)}"))


def _shift_down(x: Expr) -> Expr:
    lanes = lanes_of(x)
    unsigned = reinterpret(x, f"uint64x{lanes}") >> splat(tirx.const(32, "uint64"), lanes)
    return reinterpret(unsigned, f"int64x{lanes}")


def widen(x: Expr, split: bool) -> Wide:
    """int32 lanes as int64."""
    lanes = lanes_of(x)
    if not split or lanes == 1:
        return Wide((bind(cast(x, "int64")),))
    pairs = bind(reinterpret(x, f"int64x{lanes // 2}"))
    return Wide(((pairs << 32) >> 32, pairs >> 32))


def wide_splat(scalar: Expr, lanes: int, split: bool) -> Wide:
    """Make an int64 scalar in every lane."""
    if not split or lanes == 1:
        return Wide((splat(scalar, lanes),))
    half = splat(scalar, lanes // 2)
    return Wide((half, half))


def wide_factor(scalar: Expr, lanes: int, split: bool) -> Wide:
    """`wide_splat` of an int64 multiplier (within int32) for `multiply_add`.

    LLVM multiplies by vpmuldq where it sees, next to the multiplication, that both factors have 32
    bits. It moves what it knows about a scalar out of the loop and then takes three times as long
    for a full 64-bit product. A permutation of equal lanes hides that the vector is a scalar.
    """
    plain = wide_splat(scalar, lanes, split)
    if len(plain.parts) == 1:
        return plain
    words = bind(splat(bind(cast(scalar, "int32")), lanes))
    hidden = T.call_llvm_pure_intrin(f"int32x{lanes}", PERMUTE[lanes], words, words)
    factor = bind(reinterpret(bind(hidden), f"int64x{lanes // 2}"))
    return Wide((factor, factor))


def split_constant(values: IntArray, lanes: int, split: bool, dtype: str = "int64") -> IntArray:
    """Arrange (groups, lanes) constants for `load_wide`.

    Args:
        values: (groups, lanes) integers.
        lanes: of one register of int32.
        split: whether even and odd lanes are held apart.
        dtype: that the values fit.

    Returns:
        (groups, lanes) of that type; with `split` int64, each group's even lanes before its odd
        ones.
    """
    values = np.asarray(values, np.int64)
    if split:
        return np.concatenate([values[:, 0::2], values[:, 1::2]], axis=1)
    return np.ascontiguousarray(values.astype(dtype))


def load_wide(buffer: Buffer, group: Expr, lanes: int, split: bool) -> Wide:
    """Read what `split_constant` arranged."""
    if not split:
        return Wide((cast(load(buffer, group, 0, lanes=lanes), "int64"),))
    half = lanes // 2
    return Wide(tuple(load(buffer, group, part, lanes=half) for part in (0, half)))


def multiply_add(x: Expr, multiplier: Wide, addend: Wide, split: bool) -> Wide:
    """``x * multiplier + addend`` in 64 bits; `multiplier` within int32."""

    def product(a: Expr, m: Expr) -> Expr:
        # The shifts only tell LLVM that 32 bits are enough: it then multiplies by vpmuldq.
        return bind(a) * ((bind(m) << 32) >> 32)

    return widen(x, split).zip(multiplier, product).zip(addend, lambda a, b: a + b)


def clamp(x: Expr, low: Expr, high: Expr) -> Expr:
    """Limit elementwise to scalars `low` and `high` of the same element type."""
    lanes = lanes_of(x)
    return bind(tirx.min(tirx.max(x, splat(low, lanes)), splat(high, lanes)))
