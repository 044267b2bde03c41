"""Records: products of two activations, softmax of both families, and attention as one operator."""

from math import prod
from typing import NamedTuple

import numpy as np

from vitq.numerics import ivit
from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import AttentionParams, QkvShape, int_attention, int_offset_attention
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.ivit import IvitSoftmaxParams, ivit_shiftmax
from vitq.numerics.matmul import centred_matmul
from vitq.numerics.nonlinear import SoftmaxParams, int_softmax
from vitq.numerics.offset import HIDDEN, REACH, int_offset
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    CODE_MAX,
    LOG2_FRACTION_BITS,
    SCORE_LIMIT,
    CodeParams,
    NormalizeParams,
    normalized_matmul,
    shiftmax_codes,
)
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
from vitq.relay_passes.dialect.operators.nonlinear import RECIPROCAL_LIMIT

WEIGHT_MAX = 2**15
"""Of an unnormalized exponential in 16 bits."""


class ZeroPoints(NamedTuple):
    """Zero points of a product's operands."""

    a_zero_point: int
    b_zero_point: int


class NormalizedMatmulParams(NamedTuple):
    """The zero point of the values, then `NormalizeParams`."""

    value_zero_point: int
    norm: NormalizeParams

    @classmethod
    def of(cls, value_zero_point: int, *norm: int) -> "NormalizedMatmulParams":
        """Read all integers in order."""
        return cls(value_zero_point, NormalizeParams(*norm))


def _softmax_params(*values: int) -> SoftmaxParams:
    return SoftmaxParams.from_scalars(values)


def _norm_codes(_: Operands, p: NormalizedMatmulParams | SoftmaxParams) -> Interval:
    return p.norm.qmin, p.norm.qmax


def _products(o: Operands, p: ZeroPoints) -> int:
    """Return the largest magnitude of an accumulator."""
    a, b = o["a"], o["b"]
    return a.shape[-1] * a.magnitude(p.a_zero_point) * b.magnitude(p.b_zero_point)


def _matmul(o: Operands, p: ZeroPoints) -> list[Intermediate]:
    bound = _products(o, p)
    return [Intermediate("accumulator", -bound, bound, ACC_LIMIT)]


def _matmul_codes(o: Operands, p: ZeroPoints) -> Interval:
    bound = _products(o, p)
    return -bound, bound


def _multiplied(a: IntArray, b: IntArray, p: ZeroPoints) -> IntArray:
    return centred_matmul(a, np.swapaxes(b, -1, -2), *p)


def _exponent(p: CodeParams) -> Intermediate:
    """Bound a code's shift below ten octaves, so that it fits the lanes it is computed in."""
    largest = p.limit << (LOG2_FRACTION_BITS - p.grid_bits)
    return Intermediate("exponent", 0, largest, CODE_LIMIT)


def _weighted(terms: int, value: int, norm: NormalizeParams) -> list[Intermediate]:
    """Bound the second product, weights by values of some magnitude, and its normalization."""
    acc = terms * CODE_MAX * value
    return [
        Intermediate("accumulator", -acc, acc, ACC_LIMIT),
        Intermediate("row sum", 0, terms * CODE_MAX, ACC_LIMIT),
        Intermediate("row multiplier", 0, norm.numerator // CODE_MAX, ACC_LIMIT),
    ]


def _offset_codes(o: Operands, _: None) -> Interval:
    (low, high), (least, most) = o["x"].codes, o["offset"].codes
    return low + least, high + most


def _beside_masks(score: int, offset: IntArray) -> list[Intermediate]:
    """Bound the scores that no mask hides, where one is cut to the limit (`numerics.offset`)."""
    shown = offset[offset > -HIDDEN].astype(np.int64)
    if shown.size == offset.size:
        return []
    reach = score + int(np.abs(shown).max(initial=0))
    return [Intermediate("score beside a mask", -reach, reach, REACH)]


def _offset(o: Operands, _: None) -> list[Intermediate]:
    low, high = _offset_codes(o, None)
    masks = _beside_masks(o["x"].magnitude(), o["offset"].constant)
    return [Intermediate("sum", low, high, SCORE_LIMIT), *masks]


def _shiftmax_codes(o: Operands, p: CodeParams) -> list[Intermediate]:
    x = o["x"]
    return [
        Intermediate("score", *x.codes, SCORE_LIMIT),
        _exponent(p),
        Intermediate("row sum", 0, x.shape[-1] * CODE_MAX, ACC_LIMIT),
    ]


def _shiftmax(o: Operands, _: SoftmaxParams) -> list[Intermediate]:
    x = o["x"]
    return [
        Intermediate("score", *x.codes, SCORE_LIMIT),
        Intermediate("row sum", 0, x.shape[-1] * WEIGHT_MAX, ACC_LIMIT),
    ]


def _ivit_shiftmax(o: Operands, p: IvitSoftmaxParams) -> list[Intermediate]:
    x = o["x"]
    row = x.shape[-1] * (p.i0 << ivit.SOFTMAX_OCTAVES)
    return [
        Intermediate("score", *x.codes, SCORE_LIMIT),
        Intermediate("unit", p.i0, p.i0, ivit.UNIT_LIMIT),
        Intermediate("row sum", 0, row, RECIPROCAL_LIMIT),
    ]


def _normalized_matmul(o: Operands, p: NormalizedMatmulParams) -> list[Intermediate]:
    value = o["value"].magnitude(p.value_zero_point)
    return _weighted(o["codes"].shape[-1], value, p.norm)


def _averaged(codes: IntArray, value: IntArray, p: NormalizedMatmulParams) -> IntArray:
    return normalized_matmul(codes, value, p.value_zero_point, p.norm)


def _attention(o: Operands, p: AttentionParams) -> list[Intermediate]:
    qkv = o["qkv"]
    shape = QkvShape.of(qkv.shape)
    score = shape.width * qkv.magnitude(p.q_zero_point) * qkv.magnitude(p.k_zero_point)
    least, most = o["offsets"].codes if "offsets" in o else (0, 0)
    return [
        Intermediate("score", least - score, most + score, SCORE_LIMIT),
        *(_beside_masks(score, o["offsets"].constant) if "offsets" in o else []),
        _exponent(p.codes),
        *_weighted(shape.tokens, qkv.magnitude(p.v_zero_point), p.normalize),
    ]


def _inner_products(first: Shape, out: Shape) -> int:
    return prod(out) * first[-1]


MATMUL = Operator(
    name=names.MATMUL,
    operands=("a", "b", PARAMS),
    params=ZeroPoints,
    shape=lambda a, b, _: (*a[:-1], b[-2]),
    dtype="int32",
    evaluate=_multiplied,
    prove=_matmul,
    codes=_matmul_codes,
    macs=_inner_products,
    family=Family.ATTENTION,
)
OFFSET = Operator(
    name=names.OFFSET,
    operands=("x", "offset"),
    constants=("offset",),
    dtype="int32",
    evaluate=int_offset,
    prove=_offset,
    codes=_offset_codes,
    family=Family.ATTENTION,
)
SHIFTMAX_CODES = Operator(
    name=names.SHIFTMAX_CODES,
    operands=("x", PARAMS),
    params=CodeParams,
    dtype="uint8",
    evaluate=shiftmax_codes,
    prove=_shiftmax_codes,
    codes=lambda o, p: (0, CODE_MAX),
    family=Family.ATTENTION,
)
SHIFTMAX = Operator(
    name=names.SHIFTMAX,
    operands=("x", PARAMS),
    params=_softmax_params,
    evaluate=int_softmax,
    prove=_shiftmax,
    codes=_norm_codes,
    family=Family.ATTENTION,
)
IVIT_SHIFTMAX = Operator(
    name=names.IVIT_SHIFTMAX,
    operands=("x", PARAMS),
    params=IvitSoftmaxParams,
    dtype="uint8",
    evaluate=ivit_shiftmax,
    prove=_ivit_shiftmax,
    codes=lambda o, p: (0, ivit.CODE_MAX),
    family=Family.ATTENTION,
)
NORMALIZED_MATMUL = Operator(
    name=names.NORMALIZED_MATMUL,
    operands=("codes", "value", PARAMS),
    params=NormalizedMatmulParams.of,
    shape=lambda codes, value, _: (*codes[:-1], value[-1]),
    evaluate=_averaged,
    prove=_normalized_matmul,
    codes=_norm_codes,
    macs=_inner_products,
    family=Family.ATTENTION,
)
ATTENTION = Operator(
    name=names.ATTENTION,
    operands=("qkv", PARAMS),
    params=AttentionParams,
    shape=lambda qkv, _: QkvShape.of(qkv).result,
    evaluate=int_attention,
    prove=_attention,
    macs=lambda qkv, _: QkvShape.of(qkv).macs,
    family=Family.ATTENTION,
)

OFFSET_ATTENTION = Operator(
    name=names.OFFSET_ATTENTION,
    operands=("qkv", "offsets", "index", PARAMS),
    constants=("offsets", "index"),
    params=AttentionParams,
    shape=lambda qkv, *_: QkvShape.of(qkv).result,
    evaluate=int_offset_attention,
    prove=_attention,
    macs=lambda qkv, _: QkvShape.of(qkv).macs,
    family=Family.ATTENTION,
)

OPERATORS = (
    MATMUL,
    OFFSET,
    SHIFTMAX_CODES,
    SHIFTMAX,
    IVIT_SHIFTMAX,
    NORMALIZED_MATMUL,
    ATTENTION,
    OFFSET_ATTENTION,
)
