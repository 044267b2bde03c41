"""The contract's scalar arithmetic as TIR, in int32 wherever the contract proves that it fits.

``c + mulhrs(a, b)`` is one multiplication with addition and one shift: ``(a b + 2**14 + (c << 15))
>> 15``, of which every intermediate fits into int32 for the polynomials of `numerics.exp2` and
`numerics.shiftgelu`.
"""

from collections.abc import Sequence

import numpy as np

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.emit import (
    WORD_BITS,
    Buffer,
    Expr,
    as_word,
    clamp,
    const,
    get,
    keep,
    put,
    registers,
    select,
    serial,
    wide,
)
from vitq.compiler.kernels.forms import dyadic
from vitq.compiler.kernels.forms.division import quotient
from vitq.compiler.kernels.forms.lanes import PRODUCT_SHIFT, PlainLanes
from vitq.compiler.kernels.forms.shiftgelu import GeluShifts, Rounded, shiftgelu
from vitq.compiler.kernels.forms.tir import TirLanes
from vitq.numerics.add import AddParams
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.shiftgelu import GeluParams


class Scalars(PlainLanes, TirLanes):
    """A thread's registers.

    Args:
        dtype: ``int32`` or ``int64``.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def const(self, value: int, like: Expr) -> Expr:
        """Make a constant."""
        return const(value, self.dtype)

    def keep(self, x: Expr) -> Expr:
        """Put into a register."""
        return keep(x)

    def mulhrs_add(self, c: int, a: Expr, b: Expr) -> Expr:
        """One multiplication with addition and one shift (module docstring)."""
        half = 1 << (PRODUCT_SHIFT - 1)
        return keep((a * b + const(half + (c << PRODUCT_SHIFT))) >> const(PRODUCT_SHIFT))

    def amount(self, shift: Expr) -> Expr:
        """Kept by `rounding_shift`: no register holds it before."""
        return shift

    def shift_down(self, x: Expr, bits: int) -> Expr:
        """See `amount`."""
        return x >> const(bits)

    def rounding_shift(self, x: Expr, shift: Expr, more: int = 0, least: int = 0) -> Expr:
        """Add, shift."""
        n = keep(shift)
        if more:
            return keep((x + (const(1) << (n + const(more - 1)))) >> (n + const(more)))
        return super().rounding_shift(x, n)

    def clamp(self, x: Expr, low: Expr, high: Expr) -> Expr:
        """Clamp by the upper bound first: from sm_90 on, a bound of 0 behind it costs nothing."""
        return clamp(x, low, high)


WORDS, LONGS = Scalars("int32"), Scalars("int64")


def rescaled(value: Expr, multiplier: Expr, addend: Expr, shift: Expr) -> Expr:
    """``(value * multiplier + addend) >> shift``; int32 times int64, int64 in a register."""
    return dyadic.rescaled(LONGS, wide(value), multiplier, addend, shift)


class Add:
    """`numerics.add.int_add` for one pair of codes."""

    def __init__(self, params: Buffer) -> None:
        """Read int32 AddParams into registers."""
        self.p = AddParams(*(get(params, i) for i in range(len(AddParams._fields))))
        self.half = keep(const(1) << (self.p.shift - const(1)))

    def __call__(self, a: Expr, b: Expr) -> Expr:
        """Codes of the sum."""
        p = self.p
        total = (a - p.a_zero_point) * p.a_multiplier + (b - p.b_zero_point) * p.b_multiplier
        return clamp(keep((total + self.half) >> p.shift) + p.zero_point, p.qmin, p.qmax)


class FoldedAdd:
    """`Add` with all constants in one: ``(a ma + b mb + c) >> s``, zero points and rounding in c.

    Every sum fits into int32 (`folded_add`).
    """

    def __init__(self, params: Buffer, saturated: bool) -> None:
        """Read what `folded_add` made.

        Args:
            params: ma, mb, c, s, qmin, qmax.
            saturated: whether the bounds are left to whoever packs the codes.
        """
        self.a, self.b, self.constant, self.shift, low, high = (get(params, i) for i in range(6))
        self.bounds = None if saturated else (low, high)

    def __call__(self, a: Expr, b: Expr) -> Expr:
        """Codes of the sum."""
        other = keep(b * self.b + self.constant)
        code = keep((a * self.a + other) >> self.shift)
        return code if self.bounds is None else clamp(code, *self.bounds)


def folded_add(p: AddParams, largest: tuple[int, int]) -> IntArray | None:
    """Return what `FoldedAdd` reads.

    Args:
        p: of the addition.
        largest: absolute values of both codes at most.

    Returns:
        (6,) int32; None if a sum might not fit into int32 with the output's zero point inside.
    """
    zeros = p.a_zero_point * p.a_multiplier + p.b_zero_point * p.b_multiplier
    constant = (1 << (p.shift - 1)) - zeros + (p.zero_point << p.shift)
    reach = largest[0] * abs(p.a_multiplier) + largest[1] * abs(p.b_multiplier) + abs(constant)
    if reach >= ACC_LIMIT:
        return None
    words = [p.a_multiplier, p.b_multiplier, constant, p.shift, p.qmin, p.qmax]
    return np.array(words, np.int32)


class Gelu:
    """`numerics.shiftgelu.shiftgelu` for one code, in int32."""

    def __init__(self, params: Buffer, twin: bool) -> None:
        """Read int32 GeluParams into registers, and half of each shift.

        Args:
            params: GeluParams.
            twin: whether there is a coarse range.
        """
        self.p = p = GeluParams(*(get(params, i) for i in range(len(GeluParams._fields))))
        self.shifts = GeluShifts(*map(_rounded, (p.in_shift, p.tail_shift, p.out_shift, p.more)))
        self.coarse = _Coarse(p) if twin else None

    def __call__(self, code: Expr) -> Expr:
        """Codes of the result."""
        return shiftgelu(WORDS, code, self.p, self.shifts, self.coarse)


class _Coarse:
    """`compiler.kernels.forms.shiftgelu.Coarse` in registers."""

    def __init__(self, p: GeluParams) -> None:
        self.steps = keep(p.split_steps)
        self.down = _rounded(keep(p.more + p.twin_shift))
        self.largest = keep((p.qmax - p.split) >> p.twin_shift)


def _rounded(shift: Expr) -> Rounded:
    """Return a shift, and half of what it shifts out."""
    half = keep((const(1) << shift) >> const(1))
    return lambda x: dyadic.rounded(x, half, shift)


def is_twin(params: IntArray) -> bool:
    """Whether GeluParams have a coarse range."""
    return GeluParams(*(int(v) for v in params)).is_twin


def divided(a: Expr, b: Expr, bits: int) -> Expr:
    """Compute ``a // b`` for a quotient of at most `bits` bits with ``b << bits`` within int64.

    Bit by bit: the machine's own 64-bit division goes through floating point.
    """
    rest, quotient = registers(1, "int64"), registers(1, "int64")
    put(rest, 0, a)
    put(quotient, 0, const(0, "int64"))
    with serial(bits) as i:
        place = keep(wide(const(bits - 1) - i))
        piece = keep(b << place)
        fits = keep((rest[0] >= piece).astype("int64"))
        put(rest, 0, rest[0] - piece * fits)
        put(quotient, 0, quotient[0] | (fits << place))
    return keep(quotient[0])


def reciprocal_of(b: Expr, bits: int) -> Expr:
    """``2**bits // b`` for 1 <= b < 2**62, bits <= 62."""
    rest, quotient = registers(1, "int64"), registers(1, "int64")
    one = const(1, "int64")
    put(rest, 0, const(0, "int64"))
    put(quotient, 0, const(0, "int64"))
    with serial(bits + 1) as i:
        put(rest, 0, (rest[0] << one) | (i < 1).astype("int64"))
        fits = keep((rest[0] >= b).astype("int64"))
        put(rest, 0, rest[0] - b * fits)
        put(quotient, 0, (quotient[0] << one) | fits)
    return keep(quotient[0])


class Normalize:
    """`numerics.shiftmax.normalize` for one row."""

    def __init__(self, params: Buffer, first: int = 0, saturate: bool = False) -> None:
        """Read int64 NormalizeParams into registers.

        Args:
            params: where they are.
            first: index of the first one.
            saturate: whether shifts are at least 32 and whoever packs the codes clamps them.
        """
        self.saturate = saturate
        names = ("numerator", "shift", "zero_point", "qmin", "qmax")
        self.numerator, self.shift, self.zero_point, self.qmin, self.qmax = (
            get(params, first + i) for i in range(len(names))
        )
        self.half = keep(const(1, "int64") << (self.shift - const(1, "int64")))
        if saturate:
            addend = keep(self.half + (self.zero_point << self.shift))
            word = const(WORD_BITS, "int64")
            self.low, self.high = as_word(addend), as_word(addend >> word)
            self.down = as_word(self.shift - word)

    def multiplier(self, total: Expr) -> Expr:
        """Compute the multiplier of a row with this sum of exponentials (int64)."""
        zeros = wide(intrinsics.leading_zeros(total))
        return quotient(LONGS, self.numerator, total, zeros)

    def __call__(self, acc: Expr, multiplier: Expr) -> Expr:
        """Compute a code as int32."""
        if self.saturate:
            factor = as_word(multiplier)
            return keep(intrinsics.mad_high(acc, factor, self.low, self.high) >> self.down)
        value = rescaled(acc, multiplier, self.half, self.shift) + self.zero_point
        return as_word(clamp(value, self.qmin, self.qmax))


def packed(values: Sequence[Expr], bits: int) -> Expr:
    """int32 codes as one register of narrower ones, the first one lowest."""
    mask = const((1 << bits) - 1)
    word = values[0] & mask
    for i, value in enumerate(values[1:-1], 1):
        word = word | ((value & mask) << const(i * bits))
    return keep(word | (values[-1] << const((len(values) - 1) * bits)))


def unpacked(word: Expr, i: int, dtype: str) -> Expr:
    """Element `i` of a register of narrower codes, as int32."""
    bits = int("".join(c for c in dtype if c.isdigit()))
    if dtype.startswith("u"):
        return keep((word >> const(i * bits)) & const((1 << bits) - 1))
    up = 32 - bits - i * bits
    return keep((word << const(up)) >> const(32 - bits))


def order(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """`select`, kept."""
    return keep(select(condition, yes, no))
