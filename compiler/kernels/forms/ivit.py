"""I-ViT's shift exponential, its division and its factor 1.702: `numerics.ivit`."""

from collections.abc import Callable

from vitq.compiler.kernels.forms.lanes import Expr, Lanes
from vitq.numerics.ivit import CODE_BITS, RECIPROCAL_BITS


def shift_exp(q: Lanes, x: Expr, i0: Expr, octaves: int, divided: Callable[[Expr], Expr]) -> Expr:
    """`numerics.ivit.shift_exp`.

    Args:
        q: 64-bit lanes.
        x: at most 0.
        i0: round(1 / S).
        octaves: N.
        divided: divides 0 to ``octaves * i0`` by I0; families do it in ways of their own.
    """
    lowest = q.const(-octaves, x) * i0
    power = q.keep(q.maximum(x + (x >> 1) - (x >> 4), lowest))
    times = divided(q.const(0, x) - power)
    rest = q.keep(power + times * i0)
    return q.keep(((rest >> 1) + i0) << (q.const(octaves, x) - times))


def int_div(q: Lanes, a: Expr, reciprocal: Expr) -> Expr:
    """`numerics.ivit.int_div` with the reciprocal of the divisor, ``2**62 // b``."""
    return q.keep(q.keep(a * reciprocal) >> q.const(RECIPROCAL_BITS - CODE_BITS, a))


def gelu_power(x: Expr) -> Expr:
    """1.702 x as ``x + (x >> 1) + (x >> 3) + (x >> 4)``."""
    return x + (x >> 1) + (x >> 3) + (x >> 4)
