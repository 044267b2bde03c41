"""Reads multiplications and divisions by constants: to integers they are changes of scale."""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.matmul import product_scale
from vitq.relay_passes.expressions import Expr, is_layout, op_name, shape_of
from vitq.relay_passes.reading.context import DeclineError
from vitq.relay_passes.reading.matching import real_constant
from vitq.relay_passes.reading.tracing import Lookup

SCALINGS = ("relax.multiply", "relax.divide")


class Factor(NamedTuple):
    """One multiplication or division.

    Attributes:
        name: one of `SCALINGS`.
        value: () or (C,) float64, positive.
    """

    name: str
    value: FloatArray

    def apply(self, scale: FloatArray) -> FloatArray:
        """Return the scale behind it."""
        if self.name == "relax.divide":
            return scale / self.value
        return product_scale(scale, self.value)


def constant_factor(call: Expr, lookup: Lookup) -> Factor | None:
    """Read the constant that a call multiplies or divides by, of any shape and sign, or None."""
    if op_name(call) not in SCALINGS:
        return None
    value = real_constant(lookup(call.args[1]))
    return None if value is None else Factor(op_name(call), value)


def scalar_factor(call: Expr, lookup: Lookup) -> Factor | None:
    """Return the same where it is one positive number, and the result has its operand's shape."""
    found = constant_factor(call, lookup)
    if found is None or found.value.size != 1 or shape_of(call) != shape_of(call.args[0]):
        return None
    value = found.value.reshape(())
    return Factor(found.name, value) if np.isfinite(value) and value > 0 else None


def channel_factor(call: Expr, found: Factor, axis: int) -> Factor:
    """Reshape a factor to () or (C,).

    Args:
        call: the multiplication or division.
        found: its factor.
        axis: of the channels in the call's result.

    Raises:
        DeclineError: where it varies along another axis, or is not positive.
    """
    shape, value = shape_of(call), found.value
    dims = (1,) * (len(shape) - value.ndim) + value.shape
    if any(size != 1 for index, size in enumerate(dims) if index != axis):
        raise DeclineError(f"a factor of shape {value.shape} is not one for each channel")
    if not np.all(np.isfinite(value) & (value > 0)):
        raise DeclineError("a factor behind the product is not positive")
    return Factor(found.name, value.reshape(() if value.size == 1 else -1))


def scaled_chain(expr: Expr, lookup: Lookup) -> tuple[Expr, list[Expr], tuple[Factor, ...]]:
    """Layout operators and scalar factors, in any order, between a tensor and what computed it.

    Args:
        expr: a tensor.
        lookup: a variable's definition.

    Returns:
        The root tensor; the layout calls, and the factors, from the root to `expr`. A scalar
        factor and a layout operator may change places.
    """
    layout: list[Expr] = []
    factors: list[Factor] = []
    while True:
        call = lookup(expr)
        if is_layout(call):
            layout.append(call)
        elif (factor := scalar_factor(call, lookup)) is not None:
            factors.append(factor)
        else:
            return expr, layout[::-1], tuple(factors[::-1])
        expr = call.args[0]
