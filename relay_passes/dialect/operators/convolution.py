"""Records: depthwise convolution."""

from math import prod
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.convolution import PRODUCT_LIMIT, int_depthwise
from vitq.numerics.dyadic import ACC_LIMIT, Dyadic
from vitq.numerics.linear import LinearParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import (
    PARAMS,
    Family,
    Intermediate,
    Operands,
    Operator,
    Shape,
)

CONSTANTS = ("taps", "weight", "bias", "multiplier", "shift", "zero_point")


class DepthwiseScalars(NamedTuple):
    """What is one integer for all channels."""

    x_zero_point: int
    qmin: int
    qmax: int


def _prove(o: Operands, p: DepthwiseScalars) -> list[Intermediate]:
    """Any part of the taps, for those outside of the map are skipped."""
    taps, weight = o["taps"].constant, np.abs(o["weight"].constant.astype(np.int64))
    bias = np.abs(o["bias"].constant.astype(np.int64))
    largest = o["x"].magnitude(p.x_zero_point)
    bound = int((largest * weight.sum(axis=1) + bias).max())
    product = largest * int(weight.max())
    return [
        Intermediate("row", 0, int(max(taps.max(), 0)), o["x"].shape[1] - 1),
        Intermediate("product", -product, product, PRODUCT_LIMIT),
        Intermediate("accumulator", -bound, bound, ACC_LIMIT),
    ]


def _evaluate(
    x: IntArray, taps: IntArray, weight: IntArray, bias: IntArray, multiplier: IntArray,
    shift: IntArray, zero_point: IntArray, p: DepthwiseScalars,
) -> IntArray:  # fmt: skip
    layer = LinearParams(weight, bias, Dyadic(multiplier, shift), zero_point, p.qmin, p.qmax)
    return int_depthwise(x, taps, layer, p.x_zero_point)


def _shape(x: Shape, taps: Shape, *_: Shape) -> Shape:
    return x[0], taps[0], x[2]


DEPTHWISE = Operator(
    name=names.DEPTHWISE,
    operands=("x", *CONSTANTS, PARAMS),
    constants=CONSTANTS,
    params=DepthwiseScalars,
    shape=_shape,
    evaluate=_evaluate,
    prove=_prove,
    macs=lambda x, out: prod(out),
    family=Family.LINEAR,
)

OPERATORS = (DEPTHWISE,)
