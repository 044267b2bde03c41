"""What all forms of I-LayerNorm compute of a row: `numerics.int_layernorm`.

The normalization ``(d r + half) >> shift`` of its elements stays in the families: it is the upper
word of a 64-bit product, which each takes in its own way.
"""

from vitq.compiler.kernels.forms.lanes import Expr, Lanes

RADICAND_BITS = 62


def variance(q: Lanes, channels: int, total: Expr, squares: Expr, epsilon: Expr) -> Expr:
    """``C sum(x**2) - sum(x)**2 + eps``, int64."""
    return q.keep(squares * q.const(channels, squares) - total * total + epsilon)


def headroom(q: Lanes, zeros: Expr) -> Expr:
    """k: by how many pairs of bits the variance moves up, from its leading zeros (int32)."""
    return q.keep((zeros - q.const(64 - RADICAND_BITS, zeros)) >> q.const(1, zeros))
