"""NumPy arrays as lanes: what a formula computes, without a compiler."""

import numpy as np

from vitq.compiler.kernels.forms.lanes import Expr, PlainLanes
from vitq.numerics.arrays import IntArray


class Arrays(PlainLanes):
    """int64 arrays.

    Args:
        few_mantissas: see `compiler.kernels.forms.lanes.Lanes`.
    """

    def __init__(self, few_mantissas: bool = False) -> None:
        self.few_mantissas = few_mantissas

    def const(self, value: int, like: Expr) -> Expr:
        """NumPy repeats it."""
        return np.int64(value)

    def keep(self, x: Expr) -> Expr:
        """Return the value: it is evaluated already; int32 would wrap."""
        kept: IntArray = np.asarray(x, np.int64)
        return kept

    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        """`numpy.where`."""
        return np.where(condition, yes, no)

    def one_if(self, condition: Expr) -> Expr:
        """Return the condition: it is a number already."""
        return np.asarray(condition).astype(np.int64)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """`numpy.minimum`."""
        return np.minimum(a, b)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """`numpy.maximum`."""
        return np.maximum(a, b)
