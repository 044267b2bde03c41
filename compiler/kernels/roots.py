"""LayerNorm's square roots and reciprocals, for many rows at once in int64 lanes.

For ``n`` in [2**60, 2**62): ``root = floor(sqrt(n))`` and ``r = (2**61 - 1) // root``. There is no
vector division, and a scalar one takes 40 to 90 cycles on older processors, six of them for each
row in the contract's Newton form. Here y ~= 2**61 / sqrt(n) comes from a quadratic (2.5 % off) and
three steps of ``y <- y (3 - n y**2 / 2**122) / 2``, all factors within 32 bits (``vpmuldq``); what
the truncations leave is at most 4 units. Root and reciprocal are then corrected by their exact
remainders: once in proportion, which leaves at most one unit, and once by comparison. Both are
floors, so that every exact method gives the same bits.
"""

from collections.abc import Callable

from tvm import tirx

from compiler.kernels.builder import Buffer, Expr, bind, cast, const, load, store
from numerics.int_layernorm import RECIPROCAL_BITS

Number = Callable[[int], Expr]
"""A constant in every lane."""

SEED = (2867530534, -53818, 6710)
"""2**31 / sqrt(v) for v = z / 2**14 in [1, 4): ``c0 + z (c1 + (z c2 >> 14))``, error 2.5 %."""
SMALLEST_RADICAND = 1 << 60
STEPS = 3
LARGEST = (1 << 31) - 1


def emit_reciprocals(radicands: Buffer, reciprocals: Buffer, count: int) -> None:
    """``(2**61 - 1) // floor(sqrt(n))`` for each radicand.

    Args:
        radicands: (count,) int64 in [2**60, 2**62).
        reciprocals: (count,) int32.
        count: a multiple of the vector length.
    """

    def number(value: int) -> Expr:
        return const(value, "int64", count)

    n = load(radicands, 0, lanes=count)
    y = _estimate(n, number)
    root = bind(_unsigned(bind(n >> number(31)), y, number) >> number(30))
    rest = bind(n - _signed(root, root, number))
    root = bind(root + (_signed(bind(rest >> number(5)), y, number) >> number(57)))
    root = bind(root - _one_if(_signed(root, root, number) > n, number))
    above = bind(root + number(1))
    root = bind(root + _one_if(_signed(above, above, number) <= n, number))

    limit = number((1 << RECIPROCAL_BITS) - 1)
    rest = bind(limit - _signed(y, root, number))
    y = bind(y + (_signed(bind(rest >> number(5)), y, number) >> number(56)))
    rest = bind(limit - _signed(y, root, number))
    y = bind(y - _one_if(rest < number(0), number) + _one_if(rest >= root, number))
    store(reciprocals, cast(y, "int32"), 0)


def _estimate(n: Expr, number: Number) -> Expr:
    """``2**61 / sqrt(n)`` within 4, below 2**31."""
    c0, c1, c2 = (number(c) for c in SEED)
    z, high = bind(n >> number(46)), bind(n >> number(31))
    slope = bind(c1 + (_signed(z, c2, number) >> number(14)))
    y = bind(c0 + _signed(z, slope, number))
    for _ in range(STEPS):
        square = bind(_unsigned(y, y, number) >> number(31))
        rest = bind(number(3 << 60) - _unsigned(square, high, number))
        y = bind(_unsigned(y, bind(rest >> number(30)), number) >> number(31))
    return bind(tirx.min(y, number(LARGEST)))


def _signed(a: Expr, b: Expr, number: Number) -> Expr:
    """A product of values within int32; the shifts tell LLVM so."""
    return bind(((a << number(32)) >> number(32)) * ((b << number(32)) >> number(32)))


def _unsigned(a: Expr, b: Expr, number: Number) -> Expr:
    """A product of values within uint32."""
    mask = number((1 << 32) - 1)
    return bind((a & mask) * (b & mask))


def _one_if(condition: Expr, number: Number) -> Expr:
    return bind(tirx.Select(condition, number(1), number(0)))
