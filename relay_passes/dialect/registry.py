"""All records by name."""

from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.operators import (
    attention,
    convolution,
    elementwise,
    linear,
    nonlinear,
)

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for family in (linear, convolution, attention, nonlinear, elementwise)
    for operator in family.OPERATORS
}
"""The integer operators: what a module consists of at the end, beside layout."""
