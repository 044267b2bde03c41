"""One record for each operator: everything that is a fact of the operator and not of a kernel.

The interpreter, the proof of ranges, the constructors of calls, the check that nothing but integers
is left and the benchmark read it. Kernels stand above this package, so that a record cannot hold
them: their tables (`compiler.kernels.cpu.lowering`, `compiler.kernels.cuda.lowering`) are keyed by
the same names, and a test compares them with the records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

Shape = tuple[int, ...]
Interval = tuple[int, int]
"""The smallest and the largest code, both included."""
PARAMS = "params"
"""The operand of scalars, int64 (n,): always the last one, always constant."""


class Family(StrEnum):
    """Which part of a network an operator belongs to, for the benchmark's sums."""

    LINEAR = "linear"
    ATTENTION = "attention"
    ELEMENTWISE = "elementwise"


class Operand(NamedTuple):
    """What is known of one operand of a call.

    Attributes:
        shape: static.
        codes: what it can hold.
        array: its value where it is constant.
    """

    shape: Shape
    codes: Interval
    array: IntArray | None = None

    @property
    def constant(self) -> IntArray:
        """The value of an operand that must be constant."""
        assert self.array is not None, "a call is checked for it when it is made"
        return self.array

    def magnitude(self, zero_point: int = 0) -> int:
        """Return the largest ``|code - zero_point|``."""
        return magnitude(self.codes, zero_point)


Operands = Mapping[str, Operand]


class Intermediate(NamedTuple):
    """One number inside of an operator whose range is proven.

    Attributes:
        what: for a person.
        low: its smallest possible value.
        high: its largest.
        limit: the largest magnitude allowed.
    """

    what: str
    low: int
    high: int
    limit: int

    @property
    def fits(self) -> bool:
        """Whether it stays within its limit."""
        return -self.limit <= self.low and self.high <= self.limit


def magnitude(interval: Interval, zero_point: int = 0) -> int:
    """Return the largest ``|x - zero_point|``."""
    return max(abs(interval[0] - zero_point), abs(interval[1] - zero_point))


def clamped(operands: Operands, p: Any) -> Interval:
    """Return the result of an operator that ends in a clamp to its parameters qmin and qmax."""
    del operands
    return p.qmin, p.qmax


def like_first(first: Shape, *_: Shape) -> Shape:
    """Return the result has the shape of the first operand."""
    return first


def no_products(first: Shape, out: Shape) -> int:
    """Count none: an operator without a sum of products."""
    del first, out
    return 0


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The facts of one operator.

    Attributes:
        name: from `relay_passes.dialect.names`.
        operands: their names in order; `PARAMS` is last where there are parameters.
        constants: which operands must be known at compile time, `PARAMS` apart.
        params: makes the parameters' value of the integers in `PARAMS`; None without parameters.
        shape: of the result, from the shapes of all operands.
        dtype: of the result where the operator decides it; else each call says it.
        evaluate: the result, from the operands' arrays, `params` read: the arithmetic contract.
        prove: the intermediates that could leave their integer type.
        codes: what the result can hold.
        macs: multiply-accumulate operations, from the shapes of the first operand and the result.
        family: for the benchmark.
        is_pointwise: whether each result depends on one code of x alone, and on the parameters: a
            table of all results can stand for the operator (`compiler.kernels.pointwise`).
    """

    name: str
    operands: tuple[str, ...]
    constants: tuple[str, ...] = ()
    params: Callable[..., Any] | None = None
    shape: Callable[..., Shape] = like_first
    dtype: str = ""
    evaluate: Callable[..., IntArray]
    prove: Callable[[Operands, Any], list[Intermediate]]
    codes: Callable[[Operands, Any], Interval] = clamped
    macs: Callable[[Shape, Shape], int] = no_products
    family: Family = Family.ELEMENTWISE
    is_pointwise: bool = False

    def __post_init__(self) -> None:
        """Reject a record that contradicts itself."""
        if (self.params is not None) != (self.operands[-1] == PARAMS):
            raise VitqError(f"{self.name}: parameters without the operand {PARAMS}, or vice versa")
        if not set(self.constants) < set(self.operands):
            raise VitqError(f"{self.name}: constants {self.constants} that are no operands")
        if self.is_pointwise and len(self.operands) != 2:
            raise VitqError(f"{self.name}: a pointwise operator takes x and {PARAMS}")

    def read(self, values: Sequence[int] | IntArray) -> Any:
        """Return the parameters' value."""
        assert self.params is not None, "an operator without parameters has nothing to read"
        return self.params(*(int(value) for value in values))

    def run(self, arrays: Sequence[IntArray]) -> IntArray:
        """Evaluate the operator.

        Args:
            arrays: all operands in order.

        Returns:
            The result by `numerics`, int64 as a rule.
        """
        if self.params is None:
            return self.evaluate(*arrays)
        *tensors, params = arrays
        return self.evaluate(*tensors, self.read(params))

    def must_be_constant(self, operand: str) -> bool:
        """Whether an operand must be known at compile time."""
        return operand == PARAMS or operand in self.constants
