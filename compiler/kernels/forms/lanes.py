"""What the contract's formulas compute with: integers in lanes.

A formula is written once over `Lanes`. The families of kernels have their own: 32-bit and 16-bit
vector lanes of a processor (`compiler.kernels.cpu.fixed`), the registers of a CUDA thread
(`compiler.kernels.cuda.arith`), and NumPy arrays (`compiler.kernels.forms.arrays`), with which a
formula is tested against `numerics` without a compiler.

Operators and Python's integers are used as they are: ``x + 1``, ``x >> n``, ``a < b``.
"""

from abc import ABC, abstractmethod
from typing import Any

Expr = Any

PRODUCT_SHIFT = 15
"""Of `Lanes.mulhrs`: a product of two Q15 numbers."""


class Lanes(ABC):
    """How values are held.

    Attributes:
        few_mantissas: whether a grid of one or two steps for each octave takes constants in place
            of the polynomial; the bits are the same.
    """

    few_mantissas: bool = False

    @abstractmethod
    def const(self, value: int, like: Expr) -> Expr:
        """Make a constant in as many lanes as `like` has."""

    @abstractmethod
    def keep(self, x: Expr) -> Expr:
        """Evaluate once; an expression that is used twice would be computed twice."""

    @abstractmethod
    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        """One of two values, both evaluated."""

    @abstractmethod
    def minimum(self, a: Expr, b: Expr) -> Expr:
        """Return the smaller one."""

    @abstractmethod
    def maximum(self, a: Expr, b: Expr) -> Expr:
        """Return the larger one."""

    @abstractmethod
    def one_if(self, condition: Expr) -> Expr:
        """1 where it holds, else 0."""

    @abstractmethod
    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """Compute ``(a * b + 2**14) >> 15``: `numerics.exp2.mulhrs`."""

    @abstractmethod
    def shift_down(self, x: Expr, bits: int) -> Expr:
        """Shift unsigned 16-bit values right."""

    @abstractmethod
    def rounding_shift(self, x: Expr, shift: Expr, more: int = 0, least: int = 0) -> Expr:
        """``(x + half) >> (shift + more)``, no rounding by a shift of 0.

        Args:
            x: 0 to 2**15 - 1.
            shift: for each lane, `least` to 15.
            more: for all lanes, 0 to 15.
            least: the smallest shift that occurs.
        """

    def amount(self, shift: Expr) -> Expr:
        """Prepare a shift as `rounding_shift` takes it: evaluated here, or there at once."""
        return self.keep(shift)

    def mulhrs_add(self, c: int, a: Expr, b: Expr) -> Expr:
        """``c + mulhrs(a, b)``."""
        return self.keep(self.const(c, b) + self.mulhrs(a, b))

    def clamp(self, x: Expr, low: Expr, high: Expr) -> Expr:
        """Limit to `low` and `high`."""
        return self.keep(self.minimum(self.maximum(x, low), high))


class PlainLanes(Lanes):
    """Lanes that are wide enough for the product of two 16-bit values."""

    def mulhrs(self, a: Expr, b: Expr) -> Expr:
        """Multiply, add, shift."""
        half = self.const(1 << (PRODUCT_SHIFT - 1), b)
        return self.keep((a * b + half) >> self.const(PRODUCT_SHIFT, b))

    def shift_down(self, x: Expr, bits: int) -> Expr:
        """Values are not negative in more than 16 bits."""
        return self.keep(x >> self.const(bits, x))

    def rounding_shift(self, x: Expr, shift: Expr, more: int = 0, least: int = 0) -> Expr:
        """Add, shift."""
        if more:
            half = self.const(1 << (more - 1), x) << shift
            return self.keep((x + half) >> (shift + self.const(more, x)))
        one = self.const(1, x)
        return self.keep((x + ((one << shift) >> one)) >> shift)
