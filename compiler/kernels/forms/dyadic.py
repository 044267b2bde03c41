"""Rescaling by a dyadic number: `numerics.dyadic`.

Families whose product has no 64-bit lanes, or which pack with saturation, have forms of their own
for accumulators (`compiler.kernels.cpu.arith`, `compiler.kernels.cuda.epilogue`).
"""

from vitq.compiler.kernels.forms.lanes import Expr, Lanes


def rounded(x: Expr, half: Expr, shift: Expr) -> Expr:
    """``(x + half) >> shift``."""
    return (x + half) >> shift


def rescaled(q: Lanes, x: Expr, multiplier: Expr, addend: Expr, shift: Expr) -> Expr:
    """``(x * multiplier + addend) >> shift``: one rounding, where the addend has half of it.

    Args:
        q: 64-bit lanes.
        x: within int32.
        multiplier: of the dyadic number.
        addend: half of what is shifted out, perhaps with bias and zero point
            (`numerics.dyadic.addend`).
        shift: of the dyadic number.
    """
    return q.keep(rounded(x * multiplier, addend, shift))
