"""CheckAccumulators: no integer can leave its range, for any input."""

from typing import Any, NamedTuple

from tvm import IRModule

from vitq.numerics.errors import RangeError
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect.operator import Intermediate
from vitq.relay_passes.expressions import MAIN, Expr, bindings_of, op_name
from vitq.relay_passes.module_pass import ModulePass
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.ranges import KnownOperands, Ranges


class AccumulatorBound(NamedTuple):
    """One proven bound.

    Attributes:
        var: the result's name.
        op: the operator.
        what: which intermediate.
        low: its smallest possible value.
        high: its largest.
        limit: the largest magnitude allowed.
    """

    var: str
    op: str
    what: str
    low: int
    high: int
    limit: int


def intermediates(call: Expr, ranges: Ranges) -> list[Intermediate]:
    """Return what the record of a call's operator proves of it.

    Args:
        call: of an integer operator.
        ranges: of its operands.

    Returns:
        All intermediates that could leave their type.
    """
    return dialect.record_of(call).prove(KnownOperands(call, ranges), dialect.params_of(call))


def is_proven(call: Expr, ranges: Ranges) -> bool:
    """Whether every intermediate of an operator stays in its integer type on these codes."""
    return all(found.fits for found in intermediates(call, ranges))


class CheckAccumulators(ModulePass):
    """Proves from constants, bounds and shapes that every intermediate stays in its integer type.

    Changes nothing. For each operator it bounds the accumulator (and the other intermediates that
    ``numerics/`` limits) over all codes that the operator's input can hold: the clamp bounds
    of what produced them, or the type's range. Weights are constants, so a linear layer's bound is
    exact: ``max over c of sum_k max(w[c, k] qmin, w[c, k] qmax, 0) + max(bias[c], 0)``.
    """

    requires = (Property.INTEGER_ONLY,)
    ensures = (Property.PROVEN,)

    def __init__(self) -> None:
        """Begin without bounds."""
        self.bounds: list[AccumulatorBound] = []

    def __call__(self, mod: IRModule) -> IRModule:
        """Check ``main``.

        Args:
            mod: an integer-only module.

        Returns:
            The same module; the proven bounds are in `bounds`.

        Raises:
            RangeError: naming the first operator and number that could overflow.
        """
        self.bounds = []
        ranges = Ranges()
        for binding in bindings_of(mod[MAIN]):
            if dialect.is_dialect(binding.value):
                self._prove(binding, ranges)
            ranges.record(binding)
        return mod

    def _prove(self, binding: Any, ranges: Ranges) -> None:
        """Bound one operator."""
        name = op_name(binding.value)
        for found in intermediates(binding.value, ranges):
            bound = AccumulatorBound(binding.var.name, name, *found)
            self.bounds.append(bound)
            if not found.fits:
                raise RangeError(
                    f"{name} ({bound.var}): its {found.what} can reach [{found.low}, {found.high}],"
                    f" beyond +-{found.limit}: use fewer bits or a narrower weight range for this "
                    "layer"
                )
