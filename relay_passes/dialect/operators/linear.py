"""Records: layers with constant weights, alone and with what follows them."""

from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic
from vitq.numerics.linear import LinearParams, int_linear, int_patch_embed
from vitq.numerics.matmul import weight_bounds
from vitq.numerics.rows import GatherParams, gather_rows
from vitq.numerics.shiftgelu import GeluParams, shiftgelu
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import (
    PARAMS,
    Family,
    Intermediate,
    Interval,
    Operands,
    Operator,
    Shape,
)
from vitq.relay_passes.dialect.operators.elementwise import row_bound, sum_bounds
from vitq.relay_passes.dialect.operators.nonlinear import gelu_bounds

CONSTANTS = ("weight", "bias", "multiplier", "shift", "zero_point")
BOUNDS = "bounds"
"""A fused layer's (qmin, qmax), which are the parameters of a layer that stands alone."""


class Limits(NamedTuple):
    """The bounds of a layer's codes."""

    qmin: int
    qmax: int


def _accumulator(o: Operands) -> Intermediate:
    """All partial sums: weights are constant, so that the bound is exact."""
    weight, bias = o["weight"].constant, o["bias"].constant
    matrix = weight.reshape(weight.shape[0], -1)
    low, high = weight_bounds(matrix, bias.astype(np.int64), *o["x"].codes)
    return Intermediate("accumulator", low, high, ACC_LIMIT)


def _codes(o: Operands) -> Interval:
    """Return what a fused layer hands on."""
    low, high = o[BOUNDS].constant
    return int(low), int(high)


def _linear(o: Operands, _: Limits) -> list[Intermediate]:
    return [_accumulator(o)]


def _linear_add(o: Operands, p: AddParams) -> list[Intermediate]:
    return [_accumulator(o), *sum_bounds(_codes(o), o["residual"].codes, p)]


def _linear_gelu(o: Operands, p: GeluParams) -> list[Intermediate]:
    return [_accumulator(o), *gelu_bounds(_codes(o), p)]


def _layer(constants: tuple[IntArray, ...], limits: IntArray | Limits) -> LinearParams:
    weight, bias, multiplier, shift, zero_point = constants
    qmin, qmax = (int(limit) for limit in limits)
    return LinearParams(weight, bias, Dyadic(multiplier, shift), zero_point, qmin, qmax)


def _summed(x: IntArray, *rest: IntArray) -> IntArray:
    *constants, limits = rest
    return int_linear(x, _layer(tuple(constants), limits))


def _embedded(x: IntArray, *rest: IntArray) -> IntArray:
    *constants, limits = rest
    return int_patch_embed(x, _layer(tuple(constants), limits))


def _added(*arrays: IntArray) -> IntArray:
    *layer, residual, p = arrays
    assert isinstance(p, AddParams)
    return int_add(_summed(*layer), residual, p)


def _gelu(*arrays: IntArray) -> IntArray:
    *layer, p = arrays
    assert isinstance(p, GeluParams)
    return shiftgelu(_summed(*layer), p)


def _channels(x: Shape, weight: Shape, *_: Shape) -> Shape:
    return (*x[:-1], weight[0])


def _patches(pixels: Shape, weight: Shape, *_: Shape) -> Shape:
    down, across = (edge // patch for edge, patch in zip(pixels[2:], weight[2:], strict=True))
    return pixels[0], down * across, weight[0]


def _products(x: Shape, out: Shape) -> int:
    return prod(out) * x[-1]


def _pixel_products(pixels: Shape, out: Shape) -> int:
    return prod(pixels) * out[-1]  # each pixel meets every output channel once


LINEAR = Operator(
    name=names.LINEAR,
    operands=("x", *CONSTANTS, PARAMS),
    constants=CONSTANTS,
    params=Limits,
    shape=_channels,
    evaluate=_summed,
    prove=_linear,
    macs=_products,
    family=Family.LINEAR,
)
PATCH_EMBED = Operator(
    name=names.PATCH_EMBED,
    operands=("x", *CONSTANTS, PARAMS),
    constants=CONSTANTS,
    params=Limits,
    shape=_patches,
    evaluate=_embedded,
    prove=_linear,
    macs=_pixel_products,
    family=Family.LINEAR,
)
LINEAR_ADD = Operator(
    name=names.LINEAR_ADD,
    operands=("x", *CONSTANTS, BOUNDS, "residual", PARAMS),
    constants=(*CONSTANTS, BOUNDS),
    params=AddParams,
    shape=_channels,
    evaluate=_added,
    prove=_linear_add,
    macs=_products,
    family=Family.LINEAR,
)
LINEAR_GELU = Operator(
    name=names.LINEAR_GELU,
    operands=("x", *CONSTANTS, BOUNDS, PARAMS),
    constants=(*CONSTANTS, BOUNDS),
    params=GeluParams,
    shape=_channels,
    evaluate=_gelu,
    prove=_linear_gelu,
    macs=_products,
    family=Family.LINEAR,
)


def _gathered(record: Operator, name: str) -> Operator:
    """Return the record of a layer that reads its input's rows (B, R, K) through a table (M,)."""

    def evaluate(x: IntArray, rows: IntArray, *rest: IntArray) -> IntArray:
        return record.evaluate(gather_rows(x, rows, GatherParams(0)), *rest)

    def prove(o: Operands, p: Any) -> list[Intermediate]:
        return [row_bound(o), *record.prove(o, p)]

    x, *rest = record.operands
    return replace(
        record,
        name=name,
        operands=(x, "rows", *rest),
        constants=("rows", *record.constants),
        shape=lambda x, rows, weight, *_: (x[0], rows[0], weight[0]),
        evaluate=evaluate,
        prove=prove,
    )


GATHER_LINEAR = _gathered(LINEAR, names.GATHER_LINEAR)
GATHER_LINEAR_ADD = _gathered(LINEAR_ADD, names.GATHER_LINEAR_ADD)

OPERATORS = (LINEAR, PATCH_EMBED, LINEAR_ADD, LINEAR_GELU, GATHER_LINEAR, GATHER_LINEAR_ADD)
