"""LayerNorm's square roots and reciprocals, for many rows at once in int64 lanes.

`compiler.kernels.forms.reciprocal` says how.
"""

from vitq.compiler.kernels.cpu.builder import Buffer, cast, load, store
from vitq.compiler.kernels.cpu.fixed import Longs
from vitq.compiler.kernels.forms.reciprocal import reciprocal

SMALLEST_RADICAND = 1 << 60


def emit_reciprocals(radicands: Buffer, reciprocals: Buffer, count: int) -> None:
    """``(2**61 - 1) // floor(sqrt(n))`` for each radicand.

    Args:
        radicands: (count,) int64 in [2**60, 2**62).
        reciprocals: (count,) int32.
        count: a multiple of the vector length.
    """
    roots = reciprocal(Longs(), load(radicands, 0, lanes=count))
    store(reciprocals, cast(roots, "int32"), 0)
