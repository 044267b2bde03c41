"""Records: addition, product, requantization, mean over tokens, argmax, table look-up."""

from typing import NamedTuple

import numpy as np

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.argmax import MOST_CLASSES, int_argmax
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic
from vitq.numerics.multiply import (
    MultiplyAddParams,
    MultiplyParams,
    int_multiply,
    int_multiply_add,
)
from vitq.numerics.pooling import MeanParams, int_mean
from vitq.numerics.requantize import RequantizeParams, int_requantize
from vitq.numerics.rows import GatherParams, gather_rows
from vitq.numerics.table import TableParams, int_lut
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


def _multiply(o: Operands, p: MultiplyParams) -> list[Intermediate]:
    a, b = o["a"].magnitude(p.a_zero_point), o["b"].magnitude(p.b_zero_point)
    return [Intermediate("product", -a * b, a * b, ACC_LIMIT)]


def _multiply_add(o: Operands, p: MultiplyAddParams) -> list[Intermediate]:
    a, b = o["a"].magnitude(p.a_zero_point), o["b"].magnitude(p.b_zero_point)
    c, d = o["c"].magnitude(p.c_zero_point), o["d"].magnitude(p.d_zero_point)
    return [Intermediate("sum of products", -a * b - c * d, a * b + c * d, ACC_LIMIT)]


def _broadcast(*shapes: Shape) -> Shape:
    return tuple(np.broadcast_shapes(*shapes[:-1]))


def _lut(o: Operands, p: TableParams) -> list[Intermediate]:
    entries = o["table"].shape[1] - 1
    low, high = (end - p.low for end in o["x"].codes)
    return [
        Intermediate("index", low, high, entries),
        Intermediate("index from the end", entries - high, entries - low, entries),
    ]


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


def _argmax(o: Operands, _: None) -> list[Intermediate]:
    low, high = o["x"].codes
    last = MOST_CLASSES - 1
    return [
        Intermediate("class", 0, o["x"].shape[1] - 1, last),
        Intermediate("key", MOST_CLASSES * low, MOST_CLASSES * high + last, ACC_LIMIT),
    ]


def _averaged(x: IntArray, p: MeanParams) -> IntArray:
    return int_mean(x, p, axis=1)


def row_bound(o: Operands) -> Intermediate:
    """Prove that a table names rows that exist."""
    rows = np.maximum(o["rows"].constant, 0)
    return Intermediate("row", int(rows.min()), int(rows.max()), o["x"].shape[1] - 1)


def _moved(o: Operands, p: GatherParams) -> Interval:
    low, high = o["x"].codes
    is_whole = int(o["rows"].constant.min()) >= 0
    return (low, high) if is_whole else (min(low, p.fill), max(high, p.fill))


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
ARGMAX = Operator(
    name=names.ARGMAX,
    operands=("x",),
    shape=lambda x: (x[0], x[2]),
    dtype="uint8",
    evaluate=int_argmax,
    prove=_argmax,
    codes=lambda o, p: (0, o["x"].shape[1] - 1),
)
MULTIPLY = Operator(
    name=names.MULTIPLY,
    operands=("a", "b", PARAMS),
    params=MultiplyParams,
    shape=_broadcast,
    evaluate=int_multiply,
    prove=_multiply,
)
MULTIPLY_ADD = Operator(
    name=names.MULTIPLY_ADD,
    operands=("a", "b", "c", "d", PARAMS),
    params=MultiplyAddParams,
    shape=_broadcast,
    evaluate=int_multiply_add,
    prove=_multiply_add,
)
LUT = Operator(
    name=names.LUT,
    operands=("x", "table", PARAMS),
    constants=("table",),
    params=TableParams,
    evaluate=int_lut,
    prove=_lut,
    codes=lambda o, p: o["table"].codes,
)

GATHER_ROWS = Operator(
    name=names.GATHER_ROWS,
    operands=("x", "rows", PARAMS),
    constants=("rows",),
    params=GatherParams,
    shape=lambda x, rows, _: (x[0], rows[0], x[2]),
    evaluate=gather_rows,
    prove=lambda o, p: [row_bound(o)],
    codes=_moved,
)

OPERATORS = (ADD, MULTIPLY, MULTIPLY_ADD, REQUANTIZE, MEAN, ARGMAX, LUT, GATHER_ROWS)
