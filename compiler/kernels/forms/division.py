"""``a // b`` by multiplications, exact.

A GPU has no integer division, and what stands in for one of 64 bits is a hundred instructions or
goes through floating point. With ``D = b << k`` in [2**30, 2**31) and ``A = a << k``,

    X ~= 2**61 / D     from a line (1/17 off) and three Newton steps: 2**-31 off
    q0 = (A >> 31) X >> 30,  r = A - q0 D       a few units off, from the truncations
    q1 = q0 + ((r >> 5) X >> 56), r = A - q1 D  at most one unit off
    q  = q1 - [r < 0] + [r >= D]

"""

from vitq.compiler.kernels.forms.lanes import Expr, Lanes

SEED_BITS = 30
LINE = (round(48 / 17 * 2**SEED_BITS), round(32 / 17 * 2**SEED_BITS))
"""1 / d in [0.5, 1) is about 48/17 - 32/17 d."""
STEPS = 3
DIVISOR_BITS = 31
QUOTIENT_BITS = 31


def quotient(q: Lanes, a: Expr, b: Expr, zeros: Expr) -> Expr:
    """Compute ``a // b`` for a >= 0, 1 <= b < 2**31 and a quotient below 2**31, all int64.

    Args:
        q: 64-bit lanes.
        a: dividend.
        b: divisor.
        zeros: leading zeros of b as a 64-bit number, int64.
    """

    def number(value: int) -> Expr:
        return q.const(value, b)

    keep = q.keep
    k = keep(zeros - number(64 - DIVISOR_BITS))
    d, scaled = keep(b << k), keep(a << k)
    x = keep(number(LINE[0]) - (d * number(LINE[1]) >> number(DIVISOR_BITS)))
    for _ in range(STEPS):
        rest = keep((number(1 << (SEED_BITS + DIVISOR_BITS)) - d * x) >> number(DIVISOR_BITS))
        x = keep(x + (x * rest >> number(SEED_BITS)))
    found = keep((scaled >> number(DIVISOR_BITS)) * x >> number(SEED_BITS))
    rest = keep(scaled - found * d)
    found = keep(found + ((rest >> number(5)) * x >> number(56)))
    rest = keep(scaled - found * d)
    return keep(found - q.one_if(rest < number(0)) + q.one_if(rest >= d))
