"""Reads functions of one quantized tensor, by what they compute.

`silu` may be spelled ``x * sigmoid(x)``, `mish` ``x * tanh(log(1 + exp(x)))``: whatever the
spelling, an expression of element-wise operators over the codes of one tensor is evaluated on a
grid of real numbers and compared with the functions that `numerics.pointwise` knows.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.pointwise import CLAMP, TABLES, Ends, function_values
from vitq.relay_passes.expressions import Expr, is_constant, op_name
from vitq.relay_passes.reading.clamps import number
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.reading.matching import Codes
from vitq.relay_passes.reading.relax_numpy import ELEMENTWISE

GRID = np.linspace(-12.0, 12.0, 97)
FAR = -1.0e4
PROBES = np.array([FAR, -1.0, -FAR])
"""Where `elu` is -alpha, `leaky_relu` -slope; a clamp is its ends at the first and the last."""
TOLERANCE = 1e-5
GELU_STEP = "relax.erf"
"""GELU is read by `relay_passes.lower_shiftgelu`."""
LINEAR = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.negative")
"""Of these alone no function is made: sums and products have operators of their own."""


class _OtherError(Exception):
    """An expression is no function of one tensor."""


class Function(NamedTuple):
    """A function of the codes of one tensor.

    Attributes:
        name: of `numerics.pointwise`; empty for one that is none of these.
        parameter: where it has one.
        ends: of a clamp: the smallest and the largest value; None of others.
        codes: what it reads.
        expr: the expression.
    """

    name: str
    parameter: float | None
    ends: Ends | None
    codes: Codes
    expr: Expr

    def values(self, x: FloatArray, ctx: Context) -> FloatArray:
        """Evaluate the expression in float64 where the codes mean `x`."""
        return _Reader(x, ctx).value(self.expr)


def read_function(expr: Expr, ctx: Context) -> Function | None:
    """Recognize a function.

    Args:
        expr: what may be one.
        ctx: the function being built.

    Returns:
        None for an expression of several tensors, of other operators, or of sums and products
        alone.
    """
    if op_name(ctx.definition(expr)) not in ELEMENTWISE:
        return None
    reader = _Reader(np.concatenate([PROBES, GRID]), ctx)
    try:
        values = reader.value(expr)
    except _OtherError:
        return None
    if reader.codes is None or not reader.is_function or values.shape != reader.x.shape:
        return None
    ends = _ends(values)
    name, parameter = (CLAMP, None) if ends is not None else _named(values)
    return Function(name, parameter, ends, reader.codes, expr)


def _ends(values: FloatArray) -> Ends | None:
    """Return the ends of a clamp that has these values on the probes and the grid."""
    low, high = float(values[0]), float(values[len(PROBES) - 1])
    if not (low < high and np.array_equal(values[len(PROBES) :], np.clip(GRID, low, high))):
        return None
    return -np.inf if low <= FAR else low, np.inf if high >= -FAR else high


def _named(values: FloatArray) -> tuple[str, float | None]:
    """Return the function that has these values on the probes and the grid."""
    found = values[len(PROBES) :]
    for name in TABLES:
        parameter = None
        if name in ("elu", "leaky_relu"):
            parameter = float(np.float32(-values[0 if name == "elu" else 1]))
            if not 0 < abs(parameter) < np.abs(FAR) / 2:
                continue
        known = function_values(name, GRID, parameter)
        if np.allclose(found, known, TOLERANCE, TOLERANCE, equal_nan=True):  # 1 / 0 is inf
            return name, parameter
    return "", None


class _Reader:
    """Evaluates an expression where its only tensor holds some numbers.

    Args:
        x: the numbers.
        ctx: the function being built.
    """

    def __init__(self, x: FloatArray, ctx: Context) -> None:
        self.x, self.ctx = x, ctx
        self.codes: Codes | None = None
        self.is_function = False
        self._known: dict[Expr, FloatArray] = {}

    def value(self, expr: Expr) -> FloatArray:
        """Return an expression's value, from memory if it has been asked for."""
        if expr not in self._known:
            with np.errstate(all="ignore"):
                self._known[expr] = np.asarray(self._compute(expr), np.float64)
        return self._known[expr]

    def _compute(self, expr: Expr) -> FloatArray:
        codes = self.ctx.codes(expr)
        if codes is not None and codes.array is None:
            return self._tensor(codes)
        call = self.ctx.definition(expr)
        if is_constant(call):
            return self._constant(call)
        name = op_name(call)
        if name not in ELEMENTWISE or name == GELU_STEP:
            raise _OtherError
        self.is_function |= name not in LINEAR or self._divides_by(call)
        if name == "relax.clip":
            low, high = (number(arg, self.ctx) for arg in call.args[1:3])
            return np.clip(self.value(call.args[0]), low, high)
        arguments = [self.value(arg) for arg in call.args]
        return np.asarray(ELEMENTWISE[name](call, arguments))

    def _divides_by(self, call: Expr) -> bool:
        """Whether a call is a quotient whose lower side is no constant."""
        return op_name(call) == "relax.divide" and not is_constant(
            self.ctx.definition(call.args[1])
        )

    def _tensor(self, codes: Codes) -> FloatArray:
        """Return what a dequantized tensor holds: the first one's scale is the unit."""
        first = self.codes
        if first is None:
            self.codes = first = codes
        same = codes.codes == first.codes and codes.axis == first.axis
        if not same or not np.array_equal(codes.zero_point, first.zero_point):
            raise _OtherError
        ratio = np.unique(codes.scale / first.scale)
        if ratio.size != 1:
            raise _OtherError
        return self.x * float(ratio[0])

    def _constant(self, call: Expr) -> FloatArray:
        """Return a number; a constant of several is none."""
        found = np.asarray(call.value.numpy(), np.float64)
        if found.size != 1:
            raise _OtherError
        return found.reshape(())
