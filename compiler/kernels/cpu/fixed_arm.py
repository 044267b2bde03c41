"""`compiler.kernels.cpu.fixed.Halves` for ARM: 16-bit lanes in vectors of any number of registers.

LLVM cuts vectors into registers of 128 bits, so nothing is interleaved: `pack` leaves two vectors
one after the other, and what `unpack` returns is just both of them (`Pairs`).
"""

from typing import NamedTuple

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Expr,
    T,
    bind,
    cast,
    const,
    join,
    lanes_of,
    piece,
    reinterpret,
    splat,
)
from vitq.compiler.kernels.cpu.fixed import Halves

HALVES = 8
"""16-bit lanes in one register."""


class Pairs(NamedTuple):
    """Two vectors of 16-bit lanes whose products are added."""

    low: Expr
    high: Expr


class NeonHalves(Halves):
    """16-bit lanes of NEON."""

    def __init__(self, lanes: int) -> None:
        """`lanes` is the number of values in one vector."""
        self.lanes = lanes

    def for_group(self, lanes: int) -> "NeonHalves":
        """One group of channels is enough for a vector."""
        return NeonHalves(lanes)

    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """sqrdmulh: (2 a b + 2**15) >> 16, saturated only for two factors of -2**15."""
        return _each("llvm.aarch64.neon.sqrdmulh.v8i16", a, b)

    def power(self, shift: Expr) -> Expr:
        """By ushl."""
        lanes = lanes_of(shift)
        moved = const(1 << 15, "uint16", lanes) >> reinterpret(shift, f"uint16x{lanes}")
        return bind(reinterpret(moved, f"int16x{lanes}"))

    def shift_down(self, x: Expr, bits: int) -> Expr:
        """By ushr."""
        lanes = lanes_of(x)
        moved = reinterpret(x, f"uint16x{lanes}") >> const(bits, "uint16", lanes)
        return bind(reinterpret(moved, f"int16x{lanes}"))

    def rounding_shift(self, x: Expr, shift: Expr, more: int = 0, least: int = 0) -> Expr:
        """By srshl to the left by a negative number; it adds half of what it shifts out."""
        left = bind(const(-more, "int16", lanes_of(shift)) - shift)
        return _each("llvm.aarch64.neon.srshl.v8i16", x, left)

    def unpack(self, low: Expr, high: Expr) -> tuple[Expr, Expr]:
        """Return the first half of both, and the second."""
        half = lanes_of(low) // 2
        first, second = (Pairs(piece(low, i, half), piece(high, i, half)) for i in range(2))
        return first, second

    def multiply_high(self, a: Expr, b: Expr) -> Expr:
        """By smull and uzp2."""
        product = bind(bind(cast(a, "int32")) * bind(cast(b, "int32")))
        return bind(cast(product >> const(16, "int32", lanes_of(a)), "int16"))

    def multiply_pairs(self, pairs: Expr, multipliers: Expr) -> Expr:
        """By smull and smlal.

        Args:
            pairs: from `unpack`; then `multipliers` is the same pair in all lanes. Or a vector of
                pairs that follow each other.
            multipliers: pairs that follow each other.
        """
        if isinstance(pairs, Pairs):
            factors = [bind(tirx.Shuffle([multipliers], [i])) for i in range(2)]
            low, high = (
                bind(bind(cast(v, "int32")) * splat(bind(cast(f, "int32")), lanes_of(v)))
                for v, f in zip(pairs, factors, strict=True)
            )
            return bind(low + high)
        product = bind(bind(cast(pairs, "int32")) * bind(cast(multipliers, "int32")))
        lanes = range(0, lanes_of(product), 2)
        even, odd = (bind(tirx.Shuffle([product], [i + j for i in lanes])) for j in range(2))
        # Unsigned: the squares of two -2**15 add up to 2**31, as vpmaddwd's do.
        total = bind(bind(cast(even, "uint32")) + bind(cast(odd, "uint32")))
        return bind(cast(total, "int32"))

    def pack(self, first: Expr, second: Expr) -> Expr:
        """By sqxtn."""
        return _saturated(join([first, second]), "int16", -(1 << 15), (1 << 15) - 1)

    def pack_unsigned(self, first: Expr, second: Expr) -> Expr:
        """By sqxtun."""
        return _saturated(join([first, second]), "int16", 0, (1 << 16) - 1)

    def words_in_order(self, packed: Expr) -> Expr:
        """They are."""
        return packed

    def bytes_in_order(self, first: Expr, second: Expr, signed: bool = False) -> Expr:
        """By sqxtn or sqxtun."""
        low, high = (-128, 127) if signed else (0, 255)
        return _saturated(join([first, second]), "int8", low, high)

    def bytes_of_pairs(self, first: Expr, second: Expr) -> Expr:
        """By sqxtn of each half, then zip."""
        half = self.lanes // 2
        order = [
            source * self.lanes + parity * half + i
            for source in range(2)
            for i in range(half)
            for parity in range(2)
        ]
        return bind(tirx.Shuffle([self.bytes_in_order(first, second, True)], order))


def _each(name: str, a: Expr, b: Expr) -> Expr:
    """Apply an instruction to each register."""
    registers = range(lanes_of(a) // HALVES)
    parts = [(piece(a, i, HALVES), piece(b, i, HALVES)) for i in registers]
    return join([bind(T.call_llvm_pure_intrin("int16x8", name, x, y)) for x, y in parts])


def _saturated(x: Expr, dtype: str, low: int, high: int) -> Expr:
    """LLVM makes one instruction of limits and conversion."""
    wide = str(x.ty.dtype).split("x", maxsplit=1)[0]
    lanes = lanes_of(x)
    limited = tirx.min(tirx.max(x, const(low, wide, lanes)), const(high, wide, lanes))
    return bind(cast(bind(limited), dtype))
