"""CheckAccumulators: no integer can leave its range, for any input."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tvm import IRModule

from vitq.numerics import ivit
from vitq.numerics.add import AddParams
from vitq.numerics.attention import AttentionParams, QkvShape
from vitq.numerics.dyadic import ACC_LIMIT
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import MAX_CHANNELS
from vitq.numerics.linear import GEMM_OPERANDS
from vitq.numerics.pooling import MeanParams
from vitq.numerics.shiftgelu import GeluParams, shiftgelu_tail
from vitq.numerics.shiftmax import CODE_LIMIT, CODE_MAX, LOG2_FRACTION_BITS, SCORE_LIMIT, CodeParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import MAIN, Expr, bindings_of, op_name, shape_of
from vitq.relay_passes.reading.ranges import Interval, Ranges, gemm_bounds, magnitude, matmul_bound

VARIANCE_LIMIT = 2**62 - 1
RECIPROCAL_LIMIT = 2**ivit.RECIPROCAL_BITS - 1
TAIL_MAX = int(shiftgelu_tail(np.arange(2**15)).max())


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


Bounds = list[tuple[str, int, int, int]]


def _gemm(call: Expr, ranges: Ranges) -> Bounds:
    low, high = gemm_bounds(call, ranges.of(dialect.operands(call)[0]))
    return [("accumulator", low, high, ACC_LIMIT)]


def _matmul(call: Expr, ranges: Ranges) -> Bounds:
    a, b, _ = dialect.operands(call)
    bound = matmul_bound(call, ranges.of(a), ranges.of(b))
    return [("accumulator", -bound, bound, ACC_LIMIT)]


def _requantize(call: Expr, ranges: Ranges) -> Bounds:
    low, high = ranges.of(dialect.operands(call)[0])
    zero_point = dialect.scalars(call)[0]
    return [("input minus zero point", low - zero_point, high - zero_point, ACC_LIMIT)]


def _shiftmax_codes(call: Expr, ranges: Ranges) -> Bounds:
    scores = dialect.operands(call)[0]
    low, high = ranges.of(scores)
    row = shape_of(scores)[-1] * CODE_MAX
    p = CodeParams(*dialect.scalars(call))
    return [
        ("score", low, high, SCORE_LIMIT),
        *_exponent(p),
        ("row sum", 0, row, ACC_LIMIT),
    ]


def _shiftmax(call: Expr, ranges: Ranges) -> Bounds:
    scores = dialect.operands(call)[0]
    low, high = ranges.of(scores)
    row = shape_of(scores)[-1] * 2**15
    return [("score", low, high, SCORE_LIMIT), ("row sum", 0, row, ACC_LIMIT)]


def _exponent(p: CodeParams) -> Bounds:
    """A code's shift is less than ten octaves, so that it fits the lanes it is computed in."""
    return [("exponent", 0, p.limit << (LOG2_FRACTION_BITS - p.grid_bits), CODE_LIMIT)]


def _normalized(terms: int, value: int) -> Bounds:
    acc = terms * CODE_MAX * value
    return [("accumulator", -acc, acc, ACC_LIMIT), ("row sum", 0, terms * CODE_MAX, ACC_LIMIT)]


def _normalized_matmul(call: Expr, ranges: Ranges) -> Bounds:
    codes, value, _ = dialect.operands(call)
    p = dialect.scalars(call)
    bounds = _normalized(shape_of(codes)[-1], magnitude(ranges.of(value), p[0]))
    return [*bounds, ("row multiplier", 0, p[1] // CODE_MAX, ACC_LIMIT)]


def _attention(call: Expr, ranges: Ranges) -> Bounds:
    qkv = dialect.operands(call)[0]
    p = AttentionParams(*dialect.scalars(call))
    codes = ranges.of(qkv)
    shape = QkvShape.of(shape_of(qkv))
    score = shape.width * magnitude(codes, p.q_zero_point) * magnitude(codes, p.k_zero_point)
    return [
        ("score", -score, score, SCORE_LIMIT),
        *_exponent(p.codes),
        *_normalized(shape.tokens, magnitude(codes, p.v_zero_point)),
        ("row multiplier", 0, p.numerator // CODE_MAX, ACC_LIMIT),
    ]


def _linear_gelu(call: Expr, ranges: Ranges) -> Bounds:
    return _gemm(call, ranges) + _gelu(call, dialect.gemm_limits(call))


def _shiftgelu(call: Expr, ranges: Ranges) -> Bounds:
    return _gelu(call, ranges.of(dialect.operands(call)[0]))


def _gelu(call: Expr, codes: Interval) -> Bounds:
    p = GeluParams(*dialect.scalars(call))
    low, high = codes
    low, high = low - p.x_zero_point, high - p.x_zero_point
    distance = min(max(high, -low), p.farthest) * p.in_multiplier + (1 << p.in_shift)
    positive, tail = max(high, 0) << p.up, TAIL_MAX * p.tail_multiplier + (1 << p.tail_shift)
    negative = -(tail >> p.tail_shift)
    half = 1 << p.out_shift
    return [
        ("input minus zero point", low, high, 2**16 - 1),
        ("rescaled input", 0, distance, ACC_LIMIT),
        ("tail", 0, tail, ACC_LIMIT),
        ("sum", negative * p.out_multiplier, positive * p.out_multiplier + half, ACC_LIMIT),
        *_coarse(p, negative * p.out_multiplier, positive * p.out_multiplier + half),
    ]


def _coarse(p: GeluParams, low: int, high: int) -> Bounds:
    """The difference that a coarse range is made of, from the bounds of the sum before it."""
    if not p.is_twin:
        return []
    low, high = ((end >> p.out_shift) - p.split_steps for end in (low, high))
    half = 1 << (p.more + p.twin_shift)
    return [("coarse range", low, high + half, ACC_LIMIT)]


def _ivit_shiftmax(call: Expr, ranges: Ranges) -> Bounds:
    scores = dialect.operands(call)[0]
    i0 = ivit.IvitSoftmaxParams(*dialect.scalars(call)).i0
    row = shape_of(scores)[-1] * (i0 << ivit.SOFTMAX_OCTAVES)
    return [
        ("score", *ranges.of(scores), SCORE_LIMIT),
        ("unit", i0, i0, ivit.UNIT_LIMIT),
        ("row sum", 0, row, RECIPROCAL_LIMIT),
    ]


def _ivit_shiftgelu(call: Expr, ranges: Ranges) -> Bounds:
    p = ivit.IvitGeluParams(*dialect.scalars(call))
    low, high = (end - p.x_zero_point for end in ranges.of(dialect.operands(call)[0]))
    return [
        ("input minus zero point", low, high, 2**16 - 1),
        ("unit", p.i0, p.i0, ivit.UNIT_LIMIT),
        ("sum of two exponentials", 0, 2 * (p.i0 << ivit.GELU_OCTAVES), RECIPROCAL_LIMIT),
        ("product", low * ivit.CODE_MAX, high * ivit.CODE_MAX, ACC_LIMIT),
    ]


def _layernorm(call: Expr, ranges: Ranges) -> Bounds:
    x, multiplier, addend, _ = dialect.operands(call)
    low, high = ranges.of(x)
    channels = shape_of(x)[-1]
    eps_q = dialect.scalars(call)[0]
    # The variance of values in an interval is at most a quarter of its squared width.
    variance = channels**2 * (high - low) ** 2 // 4 + 1 + eps_q
    squares = channels**2 * magnitude((low, high)) ** 2
    m = np.abs(multiplier.value.numpy().astype(np.int64))
    affine = int((m * 2**15 + np.abs(addend.value.numpy().astype(np.int64))).max())
    return [
        ("channels", channels, channels, MAX_CHANNELS),
        ("sum of squares times channels", 0, squares, 2**63 - 1),
        ("variance", 0, variance, VARIANCE_LIMIT),
        ("affine sum", -affine, affine, ACC_LIMIT),
    ]


def _linear_add(call: Expr, ranges: Ranges) -> Bounds:
    residual = ranges.of(dialect.operands(call)[GEMM_OPERANDS])
    return _gemm(call, ranges) + _sum(call, dialect.gemm_limits(call), residual)


def _add(call: Expr, ranges: Ranges) -> Bounds:
    a, b, _ = dialect.operands(call)
    return _sum(call, ranges.of(a), ranges.of(b))


def _sum(call: Expr, a: Interval, b: Interval) -> Bounds:
    p = AddParams(*dialect.scalars(call))
    bound = magnitude(a, p.a_zero_point) * abs(p.a_multiplier)
    bound += magnitude(b, p.b_zero_point) * abs(p.b_multiplier)
    half = 1 << (p.shift - 1)
    return [("sum", half - bound, half + bound, ACC_LIMIT)]


def _mean(call: Expr, ranges: Ranges) -> Bounds:
    x = dialect.operands(call)[0]
    zero_point = MeanParams(*dialect.scalars(call)).x_zero_point
    bound = shape_of(x)[1] * magnitude(ranges.of(x), zero_point)
    return [("sum", -bound, bound, ACC_LIMIT)]


PROOFS: dict[str, Callable[[Expr, Ranges], Bounds]] = {
    dialect.PATCH_EMBED: _gemm,
    dialect.LINEAR: _gemm,
    dialect.LINEAR_ADD: _linear_add,
    dialect.LINEAR_GELU: _linear_gelu,
    dialect.MATMUL: _matmul,
    dialect.REQUANTIZE: _requantize,
    dialect.SHIFTMAX_CODES: _shiftmax_codes,
    dialect.SHIFTMAX: _shiftmax,
    dialect.IVIT_SHIFTMAX: _ivit_shiftmax,
    dialect.NORMALIZED_MATMUL: _normalized_matmul,
    dialect.ATTENTION: _attention,
    dialect.SHIFTGELU: _shiftgelu,
    dialect.IVIT_SHIFTGELU: _ivit_shiftgelu,
    dialect.LAYERNORM: _layernorm,
    dialect.ADD: _add,
    dialect.MEAN: _mean,
    dialect.LUT: lambda call, ranges: [],
}


def is_proven(call: Expr, ranges: Ranges) -> bool:
    """Whether every intermediate of an operator stays in its integer type on these codes."""
    bounds = PROOFS[op_name(call)](call, ranges)
    return all(-limit <= low and high <= limit for _, low, high, limit in bounds)


class CheckAccumulators:
    """Proves from constants, bounds and shapes that every intermediate stays in its integer type.

    Changes nothing. For each operator it bounds the accumulator (and the other intermediates that
    ``numerics/`` limits) over all codes that the operator's input can hold: the clamp bounds
    of what produced them, or the type's range. Weights are constants, so a linear layer's bound is
    exact: ``max over c of sum_k max(w[c, k] qmin, w[c, k] qmax, 0) + max(bias[c], 0)``.
    """

    name = "CheckAccumulators"

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
        for what, low, high, limit in PROOFS[name](binding.value, ranges):
            bound = AccumulatorBound(binding.var.name, name, what, low, high, limit)
            self.bounds.append(bound)
            if low < -limit or high > limit:
                raise RangeError(
                    f"{name} ({bound.var}): its {what} can reach [{low}, {high}], beyond "
                    f"+-{limit}: use fewer bits or a narrower weight range for this layer"
                )
