"""Q15 arithmetic in vector lanes: the 16-bit values of the shift exponentials.

The contract keeps these values within 16 bits, so that a register of AVX-512 holds 32 of them, one
of AVX2 16, and ``vpmulhrsw`` multiplies them. `Words` is the plain form, one int32 lane for each
value, for any target and for the remainders of loops.

`Halves.unpack` interleaves the words of two registers within each 128-bit block and `pack` undoes
just that, so a value computed between the two in int32 lanes ends where it began.
"""

from abc import abstractmethod
from typing import ClassVar

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Expr,
    T,
    bind,
    cast,
    const,
    lanes_of,
    reinterpret,
    splat,
)
from vitq.compiler.kernels.forms.lanes import PlainLanes
from vitq.compiler.kernels.forms.tir import TirLanes

WORDS_PER_BLOCK = 8
POWERS = 0x01_02_04_08_10_20_40_80
"""Eight bytes, the first one 2**7, the last one 2**0."""


class VectorLanes(TirLanes):
    """Vectors of any number of lanes, and scalars."""

    few_mantissas = True

    def const(self, value: int, like: Expr) -> Expr:
        """Make a constant with as many lanes as `like`."""
        return const(value, self.dtype, lanes_of(like))

    def keep(self, x: Expr) -> Expr:
        """Bind."""
        return bind(x)


class Words(PlainLanes, VectorLanes):
    """One value in each int32 lane."""

    dtype = "int32"


class Longs(PlainLanes, VectorLanes):
    """One value in each int64 lane."""

    dtype = "int64"


class Halves(VectorLanes):
    """16-bit lanes in a whole register, what AVX-512 (BW) and AVX2 have in common.

    Attributes:
        lanes: 16-bit values in one register.
        names: LLVM's instructions, by what they do.
    """

    dtype = "int16"
    lanes: int
    names: ClassVar[dict[str, str]]

    def for_group(self, lanes: int) -> "Halves":
        """Return the form for a group of `lanes` channels; by default two make a register."""
        return self

    @abstractmethod
    def power(self, shift: Expr) -> Expr:
        """``2**(15 - shift)`` as unsigned 16-bit values, 0 <= shift < 16."""

    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """One vpmulhrsw."""
        return self._call("int16", "multiply", a, b)

    def shift_down(self, x: Expr, bits: int) -> Expr:
        """One vpsrlw."""
        unsigned = f"uint16x{self.lanes}"
        moved = reinterpret(x, unsigned) >> const(bits, "uint16", self.lanes)
        return bind(reinterpret(moved, f"int16x{self.lanes}"))

    def rounding_shift(self, x: Expr, shift: Expr, more: int = 0, least: int = 0) -> Expr:
        """``mulhrs(x, 2**(15 - shift - more))``.

        As int16, 2**15 is -2**15, which only turns the sign of the result. Where the exponent is
        negative the result is 0, as it should be.
        """
        power = self.power(shift)
        if more:
            power = self.shift_down(power, more)
        moved = self.mulhrs(x, power)
        return moved if more or least else bind(tirx.abs(moved))

    def unpack(self, low: Expr, high: Expr) -> tuple[Expr, Expr]:
        """Interleave words within 128-bit blocks: two registers of (low, high) int16 pairs."""
        return self._interleave(low, high, 0), self._interleave(low, high, WORDS_PER_BLOCK // 2)

    def multiply_high(self, a: Expr, b: Expr) -> Expr:
        """Compute ``(a * b) >> 16`` (vpmulhw)."""
        return self._call("int16", "multiply_high", a, b)

    def multiply_pairs(self, pairs: Expr, multipliers: Expr) -> Expr:
        """Return sums of the two products in each int32 lane (vpmaddwd)."""
        return self._call("int32", "multiply_pairs", pairs, multipliers)

    def pack(self, first: Expr, second: Expr) -> Expr:
        """Undo `unpack` for int32 lanes, saturating to int16 (vpackssdw)."""
        return self._call("int16", "pack", first, second)

    def pack_unsigned(self, first: Expr, second: Expr) -> Expr:
        """Undo `unpack` for int32 lanes, saturating to [0, 65535] (vpackusdw)."""
        return self._call("int16", "pack_unsigned", first, second)

    def unsigned_min(self, x: Expr, limit: Expr) -> Expr:
        """Limit unsigned 16-bit values to an int32 scalar (vpminuw)."""
        bound = splat(cast(limit, "uint16"), self.lanes)
        small = tirx.min(reinterpret(x, f"uint16x{self.lanes}"), bound)
        return bind(reinterpret(small, f"int16x{self.lanes}"))

    def words_in_order(self, packed: Expr) -> Expr:
        """Put a register that `pack` made of two in their order: its 64-bit pieces move."""
        return self._in_order(packed, "int64", 2, self.dtype)

    def bytes_in_order(self, first: Expr, second: Expr, signed: bool = False) -> Expr:
        """Two registers that `pack` made of four, as bytes in the order of the four, saturating.

        After ``vpackuswb`` or ``vpacksswb`` each 128-bit block holds four values of each source.
        """
        name = "pack_signed_bytes" if signed else "pack_bytes"
        packed = self._call("int8", name, first, second)
        return self._in_order(packed, "int32", 4, "int8")

    def bytes_of_pairs(self, first: Expr, second: Expr) -> Expr:
        """Two registers that `pack` made of even and odd elements, as saturated bytes in order."""
        packed = self._call("int8", "pack_signed_bytes", first, second)
        order = []
        for element in range(2 * self.lanes):
            source, place = divmod(element, self.lanes)
            block, word = divmod(place, WORDS_PER_BLOCK)
            at = word // 2 + word % 2 * WORDS_PER_BLOCK // 2
            order.append((2 * block + source) * WORDS_PER_BLOCK + at)
        return bind(tirx.Shuffle([packed], order))

    def _in_order(self, packed: Expr, piece: str, sources: int, dtype: str) -> Expr:
        """Bring the pieces of each source together: every 128-bit block holds one of each."""
        blocks = self.lanes // WORDS_PER_BLOCK
        order = [sources * block + source for source in range(sources) for block in range(blocks)]
        pieces = bind(reinterpret(packed, f"{piece}x{len(order)}"))
        moved = bind(tirx.Shuffle([pieces], order))
        return bind(reinterpret(moved, self._register(dtype)))

    def _interleave(self, low: Expr, high: Expr, offset: int) -> Expr:
        indices = []
        for block in range(0, self.lanes, WORDS_PER_BLOCK):
            for word in range(block + offset, block + offset + WORDS_PER_BLOCK // 2):
                indices += [word, self.lanes + word]
        return bind(tirx.Shuffle([low, high], indices))

    def _register(self, dtype: str) -> str:
        return f"{dtype}x{16 * self.lanes // int(dtype.removeprefix('int'))}"

    def _call(self, dtype: str, name: str, a: Expr, b: Expr) -> Expr:
        return bind(T.call_llvm_pure_intrin(self._register(dtype), self.names[name], a, b))


class Halves512(Halves):
    """32 values in a register (AVX512BW)."""

    lanes = 32
    names: ClassVar[dict[str, str]] = {
        "multiply": "llvm.x86.avx512.pmul.hr.sw.512",
        "multiply_high": "llvm.x86.avx512.pmulh.w.512",
        "multiply_pairs": "llvm.x86.avx512.pmaddw.d.512",
        "pack": "llvm.x86.avx512.packssdw.512",
        "pack_unsigned": "llvm.x86.avx512.packusdw.512",
        "pack_bytes": "llvm.x86.avx512.packuswb.512",
        "pack_signed_bytes": "llvm.x86.avx512.packsswb.512",
    }

    def power(self, shift: Expr) -> Expr:
        """One vpsrlvw."""
        moved = const(1 << 15, "uint16", self.lanes) >> reinterpret(shift, "uint16x32")
        return bind(reinterpret(moved, "int16x32"))


class Halves256(Halves):
    """16 values in a register (AVX2)."""

    lanes = 16
    names: ClassVar[dict[str, str]] = {
        "multiply": "llvm.x86.avx2.pmul.hr.sw",
        "multiply_high": "llvm.x86.avx2.pmulh.w",
        "multiply_pairs": "llvm.x86.avx2.pmadd.wd",
        "pack": "llvm.x86.avx2.packssdw",
        "pack_unsigned": "llvm.x86.avx2.packusdw",
        "pack_bytes": "llvm.x86.avx2.packuswb",
        "pack_signed_bytes": "llvm.x86.avx2.packsswb",
    }

    def power(self, shift: Expr) -> Expr:
        """AVX2 shifts no 16-bit lanes by different amounts: one vpshufb looks the bytes up.

        In a table of eight zeros and `POWERS`, byte ``shift`` is the low one, and the high one is
        8 further on, modulo 16.
        """
        odd = tirx.Ramp(tirx.const(0, "int64"), tirx.const(1, "int64"), 4) & const(1, "int64", 4)
        table = bind(reinterpret(odd * const(POWERS, "int64", 4), "int8x32"))
        both = shift * const(0x0101, "int16", 16) + const(0x0800, "int16", 16)
        index = bind(reinterpret(bind(both), "int8x32"))
        found = T.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.pshuf.b", table, index)
        return bind(reinterpret(bind(found), "int16x16"))
