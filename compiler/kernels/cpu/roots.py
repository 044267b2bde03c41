"""LayerNorm's square roots and reciprocals, for many rows at once in int64 lanes.

`compiler.kernels.forms.reciprocal` says how.
"""

from vitq.compiler.kernels.cpu.builder import Buffer, Expr, bind, cast, const, load, store
from vitq.compiler.kernels.forms.reciprocal import reciprocal

SMALLEST_RADICAND = 1 << 60


def emit_reciprocals(radicands: Buffer, reciprocals: Buffer, count: int) -> None:
    """``(2**61 - 1) // floor(sqrt(n))`` for each radicand.

    Args:
        radicands: (count,) int64 in [2**60, 2**62).
        reciprocals: (count,) int32.
        count: a multiple of the vector length.
    """

    def number(value: int) -> Expr:
        return const(value, "int64", count)

    store(reciprocals, cast(reciprocal(load(radicands, 0, lanes=count), number, bind), "int32"), 0)
