"""Q15 arithmetic in vector lanes: the 16-bit values of the shift exponentials.

The contract keeps these values within 16 bits, so that 512-bit x86 holds 32 of them in a register
and multiplies with ``vpmulhrsw``. `Words` is the plain form, one int32 lane for each value, for any
target and for the remainders of loops.

`Halves512.unpack` interleaves the words of two registers within each 128-bit block and `pack`
undoes just that, so a value computed between the two in int32 lanes ends where it began.
"""

from abc import ABC, abstractmethod

from tvm import tirx

from compiler.kernels.builder import Expr, T, bind, cast, const, lanes_of, reinterpret, splat
from compiler.kernels.types import CpuFeatures
from numerics.exp2 import COEFFICIENTS

WORDS_PER_BLOCK = 8


class Fixed(ABC):
    """How 16-bit values are held.

    Attributes:
        dtype: of one lane.
    """

    dtype: str

    @abstractmethod
    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """``(a * b + 2**14) >> 15``."""

    @abstractmethod
    def shift_down(self, x: Expr, shift: Expr) -> Expr:
        """Shift unsigned 16-bit values right, by a shift for each lane."""

    def const(self, value: int, like: Expr) -> Expr:
        """A constant with as many lanes as `like`."""
        return const(value, self.dtype, lanes_of(like))

    def horner(self, coefficients: tuple[int, ...], x: Expr) -> Expr:
        """``c0 + mulhrs(c1 + mulhrs(...), x)``, coefficients from the constant term up."""
        y = self.const(coefficients[-1], x)
        for c in reversed(coefficients[:-1]):
            y = bind(self.const(c, x) + self.mulhrs(y, x))
        return y

    def exp2_fraction(self, fraction: Expr) -> Expr:
        """`numerics.exp2.exp2_fraction`."""
        return self.horner(COEFFICIENTS, fraction)

    def rounding_shift(self, x: Expr, shift: Expr) -> Expr:
        """``(x + half) >> shift`` with a shift for each lane, 0 allowed; the sum is unsigned."""
        one = self.const(1, x)
        half = self.shift_down(bind(one << shift), one)
        return bind(self.shift_down(bind(x + half), shift))


class Words(Fixed):
    """One value in each int32 lane."""

    dtype = "int32"

    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """Multiply, add, shift."""
        return bind((a * b + self.const(1 << 14, b)) >> self.const(15, b))

    def shift_down(self, x: Expr, shift: Expr) -> Expr:
        """Values are not negative in 32 bits."""
        return x >> shift


class Halves512(Fixed):
    """32 values in a 512-bit register (AVX512BW)."""

    dtype = "int16"
    lanes = 32

    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """One vpmulhrsw."""
        return self._call("int16x32", "pmul.hr.sw.512", a, b)

    def shift_down(self, x: Expr, shift: Expr) -> Expr:
        """One vpsrlvw."""
        unsigned = reinterpret(x, "uint16x32") >> reinterpret(shift, "uint16x32")
        return reinterpret(unsigned, "int16x32")

    def unpack(self, low: Expr, high: Expr) -> tuple[Expr, Expr]:
        """Interleave words within 128-bit blocks: two registers of (low, high) int16 pairs."""
        return self._interleave(low, high, 0), self._interleave(low, high, WORDS_PER_BLOCK // 2)

    def multiply_pairs(self, pairs: Expr, multipliers: Expr) -> Expr:
        """Sums of the two products in each int32 lane (vpmaddwd)."""
        return self._call("int32x16", "pmaddw.d.512", pairs, multipliers)

    def pack(self, first: Expr, second: Expr) -> Expr:
        """Undo `unpack` for int32 lanes, saturating to int16 (vpackssdw)."""
        return self._call("int16x32", "packssdw.512", first, second)

    def pack_unsigned(self, first: Expr, second: Expr) -> Expr:
        """Undo `unpack` for int32 lanes, saturating to [0, 65535] (vpackusdw)."""
        return self._call("int16x32", "packusdw.512", first, second)

    def unsigned_min(self, x: Expr, limit: Expr) -> Expr:
        """Limit unsigned 16-bit values to an int32 scalar (vpminuw)."""
        bound = splat(cast(limit, "uint16"), self.lanes)
        return bind(reinterpret(tirx.min(reinterpret(x, "uint16x32"), bound), "int16x32"))

    def bytes_in_order(self, first: Expr, second: Expr) -> Expr:
        """Two registers that `pack` made of four, as bytes in the order of the four.

        After ``vpackuswb`` each 128-bit block holds four values of each source: a transposition of
        4 x 4 int32 puts them back in order.
        """
        packed = self._call("int8x64", "packuswb.512", first, second)
        order = [4 * block + source for source in range(4) for block in range(4)]
        moved = bind(tirx.Shuffle([bind(reinterpret(packed, "int32x16"))], order))
        return bind(reinterpret(moved, "int8x64"))

    def _interleave(self, low: Expr, high: Expr, offset: int) -> Expr:
        indices = []
        for block in range(0, self.lanes, WORDS_PER_BLOCK):
            for word in range(block + offset, block + offset + WORDS_PER_BLOCK // 2):
                indices += [word, self.lanes + word]
        return bind(tirx.Shuffle([low, high], indices))

    def _call(self, dtype: str, name: str, a: Expr, b: Expr) -> Expr:
        return bind(T.call_llvm_pure_intrin(dtype, f"llvm.x86.avx512.{name}", a, b))


def halves_for(features: CpuFeatures) -> Halves512 | None:
    """The 16-bit form of a processor, where there is one."""
    return Halves512() if features.dot == "vnni512" else None
