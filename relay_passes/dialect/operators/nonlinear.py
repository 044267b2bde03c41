"""Records: GELU of both families, layer and RMS normalization."""

from typing import NamedTuple

import numpy as np

from vitq.numerics import ivit
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.int_layernorm import MAX_CHANNELS, LayerNormParams, int_layernorm
from vitq.numerics.int_rmsnorm import int_rmsnorm
from vitq.numerics.ivit import IvitGeluParams, ivit_shiftgelu
from vitq.numerics.shiftgelu import GeluParams, shiftgelu, shiftgelu_tail
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import PARAMS, Intermediate, Interval, Operands, Operator

CENTRED_LIMIT = 2**16 - 1
"""Of a 16-bit code minus its zero point."""
VARIANCE_LIMIT = 2**62 - 1
RECIPROCAL_LIMIT = 2**ivit.RECIPROCAL_BITS - 1
TAILS = np.maximum.accumulate(shiftgelu_tail(np.arange(2**15)))


class LayerNormScalars(NamedTuple):
    """What of `LayerNormParams` is one integer for all channels."""

    eps_q: int
    fraction_bits: int
    shift: int
    qmin: int
    qmax: int


def gelu_bounds(codes: Interval, p: GeluParams) -> list[Intermediate]:
    """Return the intermediates of one GELU of codes."""
    low, high = (end - p.x_zero_point for end in codes)
    distance = min(max(high, -low), p.farthest) * p.in_multiplier + (1 << p.in_shift)
    farthest = 2 * (distance >> p.in_shift)
    tail = int(TAILS[min(farthest, len(TAILS) - 1)]) * p.tail_multiplier + (1 << p.tail_shift)
    positive = max(high, 0) << p.up
    negative = -(tail >> p.tail_shift)
    half = 1 << p.out_shift
    total = negative * p.out_multiplier, positive * p.out_multiplier + half
    return [
        Intermediate("input minus zero point", low, high, CENTRED_LIMIT),
        Intermediate("rescaled input", 0, distance, ACC_LIMIT),
        Intermediate("tail", 0, tail, ACC_LIMIT),
        Intermediate("sum", *total, ACC_LIMIT),
        *_coarse(total, p),
    ]


def _coarse(total: Interval, p: GeluParams) -> list[Intermediate]:
    """Bound the difference that a coarse range is made of by the sum before it."""
    if not p.is_twin:
        return []
    low, high = ((end >> p.out_shift) - p.split_steps for end in total)
    half = 1 << (p.more + p.twin_shift)
    return [Intermediate("coarse range", low, high + half, ACC_LIMIT)]


def _shiftgelu(o: Operands, p: GeluParams) -> list[Intermediate]:
    return gelu_bounds(o["x"].codes, p)


def _ivit_shiftgelu(o: Operands, p: IvitGeluParams) -> list[Intermediate]:
    low, high = (end - p.x_zero_point for end in o["x"].codes)
    exponentials = 2 * (p.i0 << ivit.GELU_OCTAVES)
    return [
        Intermediate("input minus zero point", low, high, CENTRED_LIMIT),
        Intermediate("unit", p.i0, p.i0, ivit.UNIT_LIMIT),
        Intermediate("sum of two exponentials", 0, exponentials, RECIPROCAL_LIMIT),
        Intermediate("product", low * ivit.CODE_MAX, high * ivit.CODE_MAX, ACC_LIMIT),
    ]


def _layernorm(o: Operands, p: LayerNormScalars) -> list[Intermediate]:
    low, high = o["x"].codes
    # The variance of values in an interval is at most a quarter of its squared width.
    return _normalization(o, o["x"].shape[-1] ** 2 * (high - low) ** 2 // 4 + 1 + p.eps_q)


def _rmsnorm(o: Operands, p: LayerNormScalars) -> list[Intermediate]:
    return _normalization(o, o["x"].shape[-1] ** 2 * o["x"].magnitude() ** 2 + p.eps_q)


def _normalization(o: Operands, variance: int) -> list[Intermediate]:
    """Bound what both normalizations compute, by the largest radicand."""
    x = o["x"]
    channels = x.shape[-1]
    squares = channels**2 * x.magnitude() ** 2
    multiplier, addend = (
        np.abs(o[name].constant.astype(np.int64)) for name in ("multiplier", "addend")
    )
    affine = int((multiplier * 2**15 + addend).max())
    return [
        Intermediate("channels", channels, channels, MAX_CHANNELS),
        Intermediate("sum of squares times channels", 0, squares, 2**63 - 1),
        Intermediate("variance", 0, variance, VARIANCE_LIMIT),
        Intermediate("affine sum", -affine, affine, ACC_LIMIT),
    ]


def _normalized(
    x: IntArray, multiplier: IntArray, addend: IntArray, p: LayerNormScalars
) -> IntArray:
    return int_layernorm(x, LayerNormParams(multiplier, addend, *p))


def _scaled(x: IntArray, multiplier: IntArray, addend: IntArray, p: LayerNormScalars) -> IntArray:
    return int_rmsnorm(x, LayerNormParams(multiplier, addend, *p))


SHIFTGELU = Operator(
    name=names.SHIFTGELU,
    operands=("x", PARAMS),
    params=GeluParams,
    evaluate=shiftgelu,
    prove=_shiftgelu,
    is_pointwise=True,
)
IVIT_SHIFTGELU = Operator(
    name=names.IVIT_SHIFTGELU,
    operands=("x", PARAMS),
    params=IvitGeluParams,
    evaluate=ivit_shiftgelu,
    prove=_ivit_shiftgelu,
)
LAYERNORM = Operator(
    name=names.LAYERNORM,
    operands=("x", "multiplier", "addend", PARAMS),
    constants=("multiplier", "addend"),
    params=LayerNormScalars,
    evaluate=_normalized,
    prove=_layernorm,
)
RMSNORM = Operator(
    name=names.RMSNORM,
    operands=LAYERNORM.operands,
    constants=LAYERNORM.constants,
    params=LayerNormScalars,
    evaluate=_scaled,
    prove=_rmsnorm,
)

OPERATORS = (SHIFTGELU, IVIT_SHIFTGELU, LAYERNORM, RMSNORM)
