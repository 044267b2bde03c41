"""The reciprocal of a square root by multiplications, exact.

For ``n`` in [2**60, 2**62): ``root = floor(sqrt(n))`` and ``r = (2**61 - 1) // root``. There is no
vector division, and a scalar one takes 40 to 90 cycles on older processors, six of them for each
row in the contract's Newton form. Here y ~= 2**61 / sqrt(n) comes from a quadratic (2.5 % off) and
three steps of ``y <- y (3 - n y**2 / 2**122) / 2``, all factors within 32 bits (``vpmuldq``); what
the truncations leave is at most 4 units. Root and reciprocal are then corrected by their exact
remainders: once in proportion, which leaves at most one unit, and once by comparison. Both are
floors, so that every exact method gives the same bits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import tirx

from vitq.numerics.int_layernorm import RECIPROCAL_BITS

Expr = Any

Number = Callable[[int], Expr]
"""A constant in every lane."""
Keep = Callable[[Expr], Expr]
"""Evaluates an expression once."""
SEED = (2867530534, -53818, 6710)
"""2**31 / sqrt(v) for v = z / 2**14 in [1, 4): ``c0 + z (c1 + (z c2 >> 14))``, error 2.5 %."""
STEPS = 3
LARGEST = (1 << 31) - 1


def reciprocal(n: Expr, number: Number, keep: Keep) -> Expr:
    """Compute ``(2**61 - 1) // floor(sqrt(n))``, int64.

    Args:
        n: int64 in [2**60, 2**62).
        number: makes a constant.
        keep: evaluates an expression once.
    """
    signed, unsigned = partial(_signed, number, keep), partial(_unsigned, number, keep)
    y = _estimate(n, number, keep)
    root = keep(unsigned(keep(n >> number(31)), y) >> number(30))
    rest = keep(n - signed(root, root))
    root = keep(root + (signed(keep(rest >> number(5)), y) >> number(57)))
    root = keep(root - _one_if(signed(root, root) > n, number, keep))
    above = keep(root + number(1))
    root = keep(root + _one_if(signed(above, above) <= n, number, keep))

    limit = number((1 << RECIPROCAL_BITS) - 1)
    rest = keep(limit - signed(y, root))
    y = keep(y + (signed(keep(rest >> number(5)), y) >> number(56)))
    rest = keep(limit - signed(y, root))
    low, high = _one_if(rest < number(0), number, keep), _one_if(rest >= root, number, keep)
    return keep(y - low + high)


def _estimate(n: Expr, number: Number, keep: Keep) -> Expr:
    """``2**61 / sqrt(n)`` within 4, below 2**31."""
    c0, c1, c2 = (number(c) for c in SEED)
    z, high = keep(n >> number(46)), keep(n >> number(31))
    slope = keep(c1 + (_signed(number, keep, z, c2) >> number(14)))
    y = keep(c0 + _signed(number, keep, z, slope))
    for _ in range(STEPS):
        square = keep(_unsigned(number, keep, y, y) >> number(31))
        rest = keep(number(3 << 60) - _unsigned(number, keep, square, high))
        y = keep(_unsigned(number, keep, y, keep(rest >> number(30))) >> number(31))
    return keep(tirx.min(y, number(LARGEST)))


def _signed(number: Number, keep: Keep, a: Expr, b: Expr) -> Expr:
    """A product of values within int32; the shifts tell the compiler so."""
    return keep(((a << number(32)) >> number(32)) * ((b << number(32)) >> number(32)))


def _unsigned(number: Number, keep: Keep, a: Expr, b: Expr) -> Expr:
    """A product of values within uint32."""
    mask = number((1 << 32) - 1)
    return keep((a & mask) * (b & mask))


def _one_if(condition: Expr, number: Number, keep: Keep) -> Expr:
    return keep(tirx.Select(condition, number(1), number(0)))
