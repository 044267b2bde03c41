"""Records: addition, requantization, mean over tokens, table of pixels."""

from typing import NamedTuple

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic
from vitq.numerics.pooling import MeanParams, int_mean
from vitq.numerics.requantize import RequantizeParams, int_requantize
from vitq.numerics.table import int_lut
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import (
    PARAMS,
    Intermediate,
    Interval,
    Operands,
    Operator,
    Shape,
    magnitude,
)


class RequantizeScalars(NamedTuple):
    """What of `RequantizeParams` is one integer for all channels."""

    x_zero_point: int
    zero_point: int
    qmin: int
    qmax: int


def sum_bounds(a: Interval, b: Interval, p: AddParams) -> list[Intermediate]:
    """Bound an addition's sum before its shift."""
    bound = magnitude(a, p.a_zero_point) * abs(p.a_multiplier)
    bound += magnitude(b, p.b_zero_point) * abs(p.b_multiplier)
    half = 1 << (p.shift - 1)
    return [Intermediate("sum", half - bound, half + bound, ACC_LIMIT)]


def _add(o: Operands, p: AddParams) -> list[Intermediate]:
    return sum_bounds(o["a"].codes, o["b"].codes, p)


def _requantize(o: Operands, p: RequantizeScalars) -> list[Intermediate]:
    low, high = (end - p.x_zero_point for end in o["x"].codes)
    return [Intermediate("input minus zero point", low, high, ACC_LIMIT)]


def _requantized(
    x: IntArray, multiplier: IntArray, shift: IntArray, p: RequantizeScalars
) -> IntArray:
    return int_requantize(x, RequantizeParams(Dyadic(multiplier, shift), *p))


def _mean(o: Operands, p: MeanParams) -> list[Intermediate]:
    bound = o["x"].shape[1] * o["x"].magnitude(p.x_zero_point)
    return [Intermediate("sum", -bound, bound, ACC_LIMIT)]


def _averaged(x: IntArray, p: MeanParams) -> IntArray:
    return int_mean(x, p, axis=1)


def _without_tokens(x: Shape, _: Shape) -> Shape:
    return x[0], x[-1]


ADD = Operator(
    name=names.ADD,
    operands=("a", "b", PARAMS),
    params=AddParams,
    evaluate=int_add,
    prove=_add,
)
REQUANTIZE = Operator(
    name=names.REQUANTIZE,
    operands=("x", "multiplier", "shift", PARAMS),
    constants=("multiplier", "shift"),
    params=RequantizeScalars,
    evaluate=_requantized,
    prove=_requantize,
)
MEAN = Operator(
    name=names.MEAN,
    operands=("x", PARAMS),
    params=MeanParams,
    shape=_without_tokens,
    evaluate=_averaged,
    prove=_mean,
)
LUT = Operator(
    name=names.LUT,
    operands=("x", "table"),
    constants=("table",),
    evaluate=int_lut,
    prove=lambda o, p: [],
    codes=lambda o, p: o["table"].codes,
)

OPERATORS = (ADD, REQUANTIZE, MEAN, LUT)
