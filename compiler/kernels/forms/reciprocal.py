"""The reciprocal of a square root by multiplications, exact.

For ``n`` in [2**60, 2**62): ``root = floor(sqrt(n))`` and ``r = (2**61 - 1) // root``. There is no
vector division, and a scalar one takes 40 to 90 cycles on older processors, six of them for each
row in the contract's Newton form. Here y ~= 2**61 / sqrt(n) comes from a quadratic (2.5 % off) and
three steps of ``y <- y (3 - n y**2 / 2**122) / 2``, all factors within 32 bits (``vpmuldq``); what
the truncations leave is at most 4 units. Root and reciprocal are then corrected by their exact
remainders: once in proportion, which leaves at most one unit, and once by comparison. Both are
floors, so that every exact method gives the same bits.
"""

from functools import partial

from vitq.compiler.kernels.forms.lanes import Expr, Lanes
from vitq.numerics.int_layernorm import RECIPROCAL_BITS

SEED = (2867530534, -53818, 6710)
"""2**31 / sqrt(v) for v = z / 2**14 in [1, 4): ``c0 + z (c1 + (z c2 >> 14))``, error 2.5 %."""
STEPS = 3
LARGEST = (1 << 31) - 1


def reciprocal(q: Lanes, n: Expr) -> Expr:
    """Compute ``(2**61 - 1) // floor(sqrt(n))``, int64.

    Args:
        q: 64-bit lanes.
        n: int64 in [2**60, 2**62).
    """
    number, keep = partial(q.const, like=n), q.keep
    signed, unsigned = partial(_signed, q), partial(_unsigned, q)
    y = _estimate(q, n)
    root = keep(unsigned(keep(n >> number(31)), y) >> number(30))
    rest = keep(n - signed(root, root))
    root = keep(root + (signed(keep(rest >> number(5)), y) >> number(57)))
    root = keep(root - _one_if(q, signed(root, root) > n, n))
    above = keep(root + number(1))
    root = keep(root + _one_if(q, signed(above, above) <= n, n))

    limit = number((1 << RECIPROCAL_BITS) - 1)
    rest = keep(limit - signed(y, root))
    y = keep(y + (signed(keep(rest >> number(5)), y) >> number(56)))
    rest = keep(limit - signed(y, root))
    low, high = _one_if(q, rest < number(0), n), _one_if(q, rest >= root, n)
    return keep(y - low + high)


def _estimate(q: Lanes, n: Expr) -> Expr:
    """``2**61 / sqrt(n)`` within 4, below 2**31."""
    number, keep = partial(q.const, like=n), q.keep
    c0, c1, c2 = (number(c) for c in SEED)
    z, high = keep(n >> number(46)), keep(n >> number(31))
    slope = keep(c1 + (_signed(q, z, c2) >> number(14)))
    y = keep(c0 + _signed(q, z, slope))
    for _ in range(STEPS):
        square = keep(_unsigned(q, y, y) >> number(31))
        rest = keep(number(3 << 60) - _unsigned(q, square, high))
        y = keep(_unsigned(q, y, keep(rest >> number(30))) >> number(31))
    return keep(q.minimum(y, number(LARGEST)))


def _signed(q: Lanes, a: Expr, b: Expr) -> Expr:
    """Multiply values within int32; the shifts tell the compiler so."""
    word = q.const(32, a)
    return q.keep(((a << word) >> word) * ((b << word) >> word))


def _unsigned(q: Lanes, a: Expr, b: Expr) -> Expr:
    """Multiply values within uint32."""
    mask = q.const((1 << 32) - 1, a)
    return q.keep((a & mask) * (b & mask))


def _one_if(q: Lanes, condition: Expr, like: Expr) -> Expr:
    return q.keep(q.select(condition, q.const(1, like), q.const(0, like)))
