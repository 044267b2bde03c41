"""The contract's scalar arithmetic as TIR, in int32 wherever the contract proves that it fits.

``c + mulhrs(a, b)`` is one multiplication with addition and one shift: ``(a b + 2**14 + (c << 15))
>> 15``, of which every intermediate fits into int32 for the polynomials of `numerics.exp2` and
`numerics.shiftgelu`.
"""

from collections.abc import Sequence

import numpy as np
from tvm import tirx

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
from vitq.compiler.kernels.forms.division import quotient
from vitq.numerics.add import AddParams
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.exp2 import COEFFICIENTS
from vitq.numerics.shiftgelu import EXPONENT_COEFFICIENTS, GeluParams

HALF = 1 << 14


def rescaled(value: Expr, multiplier: Expr, addend: Expr, shift: Expr) -> Expr:
    """``(value * multiplier + addend) >> shift``; int32 times int64, int64 in a register."""
    return keep((wide(value) * multiplier + addend) >> shift)


def mulhrs_add(c: Expr | int, a: Expr | int, b: Expr) -> Expr:
    """``c + ((a b + 2**14) >> 15)`` for a constant c."""
    return keep((a * b + const(HALF + (int(c) << 15))) >> const(15))


def exp2_fraction(fraction: Expr) -> Expr:
    """`numerics.exp2.exp2_fraction`."""
    c0, c1, c2, c3 = COEFFICIENTS
    y = mulhrs_add(c2, const(c3), fraction)
    y = mulhrs_add(c1, y, fraction)
    return mulhrs_add(c0, y, fraction)


def rounded_shift(y: Expr, n: Expr) -> Expr:
    """``(y + half) >> n``."""
    return keep((y + ((const(1) << n) >> const(1))) >> n)


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
    """What `FoldedAdd` reads.

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
        self.twin = twin
        shifts = p.in_shift, p.tail_shift, p.out_shift, p.more
        self.halves = [keep((const(1) << shift) >> const(1)) for shift in shifts]
        if twin:
            self.steps = keep(p.split_steps)
            self.down = keep(p.more + p.twin_shift)
            self.coarse_half = keep((const(1) << self.down) >> const(1))
            self.largest = keep((p.qmax - p.split) >> p.twin_shift)

    def __call__(self, code: Expr) -> Expr:
        """Codes of the result."""
        p, (in_half, tail_half, out_half, more_half) = self.p, self.halves
        centred = keep(code - p.x_zero_point)
        distance = tirx.min(tirx.max(centred, const(0) - centred), p.farthest)
        eighth = keep((distance * p.in_multiplier + in_half) >> p.in_shift)
        tail = _tail(keep(eighth * const(2))) * p.tail_multiplier
        rest = keep((tirx.max(centred, const(0)) << p.up) - ((tail + tail_half) >> p.tail_shift))
        value = keep((rest * p.out_multiplier + out_half) >> p.out_shift)
        fine = keep((value + more_half) >> p.more) + p.zero_point
        if not self.twin:
            return clamp(fine, p.qmin, p.qmax)
        above = keep((value - self.steps + self.coarse_half) >> self.down)
        coarse = clamp(above, const(0), self.largest) << p.twin_shift
        return keep(clamp(fine, p.qmin, p.split) + coarse)


def is_twin(params: IntArray) -> bool:
    """Whether GeluParams have a coarse range."""
    return GeluParams(*(int(v) for v in params)).is_twin


def _tail(v: Expr) -> Expr:
    """`numerics.shiftgelu.shiftgelu_tail`."""
    a0, a1, a2, a3 = EXPONENT_COEFFICIENTS
    g = mulhrs_add(a2, const(a3), v)
    g = mulhrs_add(a1, g, v)
    g = mulhrs_add(a0, g, v)
    y = exp2_fraction(keep((g & const(2047)) << const(4)))
    return mulhrs_add(0, v, rounded_shift(y, keep(g >> const(11))))


def divided(a: Expr, b: Expr, bits: int) -> Expr:
    """``a // b`` for a quotient of at most `bits` bits with ``b << bits`` within int64.

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
        """Of a row with this sum of exponentials (int64)."""
        zeros = wide(intrinsics.leading_zeros(total))
        return quotient(
            self.numerator,
            total,
            zeros,
            lambda value: const(value, "int64"),
            keep,
            lambda condition: condition.astype("int64"),
        )

    def __call__(self, acc: Expr, multiplier: Expr) -> Expr:
        """A code as int32."""
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
