r"""Shiftmax: softmax in integers by shifts.

After I-ViT (arXiv:2207.01405, Algorithm 1; Eq. 7 to 12). For a row of integer scores x with scale
``sigma`` (any width, accumulators included):

    t = min(rescale(max(x) - x, sigma * log2(e) * 2**12), limit)          Q12, HALF_UP
    y = exp2_fraction((t mod 2**12) << 3),  n = t >> 12
    2**-(t / 2**12) ~= (y / 32640) >> n

Two forms use it:

* `shiftmax_codes`: 8-bit codes relative to the row's maximum, ``c = (y + 2**(6+n)) >> (7+n)`` with
  scale 1/255, NOT normalized. The normalization waits until after the product with V
  (`normalized_matmul`): one division for each row, and the row's largest code is always 255. An
  8-bit normalized probability over 197 tokens has one or two steps for the average token.
  The exponent may lie on a coarser grid than 2**-12 octaves (`numerics.log_codes`), or the codes
  on two coarser ones (`numerics.twin_codes`).
* `shiftmax`: normalized codes for a given quantizer, for QDQ models that carry one:
  ``e = (y + half) >> n`` (15 bits), ``p = (e * (M // sum(e)) + half) >> s``.

Deviations from I-ViT: a cubic instead of a line for the fraction (`numerics.exp2`), rounding
instead of floor everywhere, the sum of at most 2**16 terms of 15 bits cannot overflow int32
(I-ViT's does at
small scales), codes keep their mass. Error against float softmax: each unnormalized code within
0.5 + 255 * (MAX_ERROR + 2**-13) of 255 * exp(x - max).
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import rescale, scalar_dyadic, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.exp2 import ONE, exp2_fraction
from vitq.numerics.matmul import int_matmul
from vitq.numerics.qparams import QuantParams
from vitq.numerics.twin_codes import ONE_RANGE, TwinCodes, check_twin_codes, twin_weights

LOG2_FRACTION_BITS = 12
CODE_SCALE = np.float32(1 / 255)
CODE_MAX = 255
SCORE_LIMIT = 2**30 - 1
"""Scores must be within +-SCORE_LIMIT, so that a difference of two is an int32."""

# Ten octaves below the maximum every 8-bit code is 0; sixteen, every 15-bit one.
CODE_LIMIT = (10 << LOG2_FRACTION_BITS) - 1
WIDE_LIMIT = (16 << LOG2_FRACTION_BITS) - 1

NORM_BITS = 31

SMALLEST_WIDE_SUM = ONE
SMALLEST_CODE_SUM = CODE_MAX
"""A row's sum is at least its largest weight."""


class ShiftmaxParams(NamedTuple):
    """Dyadic ``sigma * log2(e) * 2**12``, in the order in which a kernel reads it (int64 each)."""

    multiplier: int
    shift: int


class CodeParams(NamedTuple):
    """The integers of `shiftmax_codes`, in the order in which a kernel reads them (int64 each).

    Attributes:
        multiplier: of the dyadic number of grid steps for each score step.
        shift: likewise.
        grid_bits: the exponent's grid has ``2**grid_bits`` steps for each octave, 0 to 12.
        limit: the exponent's largest value in grid steps, below ten octaves.
        zero_last: 1 where `limit` stands for a weight of 0; otherwise 0.
        fine: of `numerics.twin_codes.TwinCodes`, 0 for one range.
        coarse: likewise.
    """

    multiplier: int
    shift: int
    grid_bits: int
    limit: int
    zero_last: int
    fine: int
    coarse: int

    @property
    def twin(self) -> TwinCodes:
        """The ranges of the weights."""
        return TwinCodes(self.fine, self.coarse)


class NormalizeParams(NamedTuple):
    """Integers that divide a row by its sum and requantize it (int64 each).

    Attributes:
        numerator: M; the row's multiplier is ``M // sum``.
        shift: s.
        zero_point: of the output.
        qmin: of the output.
        qmax: of the output.
    """

    numerator: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


def shiftmax_params(scale: float) -> ShiftmaxParams:
    """Integers for scores of one scale.

    Args:
        scale: real value of one score step (attention scale included), > 0.

    Returns:
        The dyadic number of Q12 octaves for each step.
    """
    dyadic = to_dyadic(scale * np.log2(np.e) * 2**LOG2_FRACTION_BITS)
    return ShiftmaxParams(int(dyadic.multiplier), int(dyadic.shift))


def grid_params(
    scale: float, grid_bits: int, limit: int, zero_last: bool, twin: TwinCodes = ONE_RANGE
) -> CodeParams:
    """Integers for scores of one scale and an exponent on a grid.

    Args:
        scale: real value of one score step (attention scale included), > 0.
        grid_bits: 0 to 12, see `CodeParams`.
        limit: of the exponent in grid steps.
        zero_last: whether a score as far as `limit` weighs nothing.
        twin: the ranges of the weights.

    Returns:
        The integers.
    """
    check_twin_codes(twin)
    dyadic = to_dyadic(scale * np.log2(np.e) * 2**grid_bits)
    multiplier, shift = int(dyadic.multiplier), int(dyadic.shift)
    return CodeParams(multiplier, shift, grid_bits, limit, int(zero_last), *twin)


def code_params(scale: float, twin: TwinCodes = ONE_RANGE) -> CodeParams:
    """Integers of uniform codes: a grid as fine as the fraction, no limit that shows.

    Args:
        scale: real value of one score step (attention scale included), > 0.
        twin: the ranges of the weights.

    Returns:
        The integers.

    Raises:
        VitqError: for ranges that are none of `numerics.twin_codes`.
    """
    return grid_params(scale, LOG2_FRACTION_BITS, CODE_LIMIT, zero_last=False, twin=twin)


def normalize_params(factor: float, smallest_sum: int, out: QuantParams) -> NormalizeParams:
    """Integers for ``clamp(round(acc * factor / sum) + zero_point)``.

    Args:
        factor: real value of (acc / sum) in steps of the output, > 0.
        smallest_sum: the row sum's lower bound; ``M // smallest_sum`` must be an int32.
        out: the output's parameters, per tensor.

    Returns:
        The integers, with ``M / 2**s`` within a relative 2**-30 of `factor` (2**-47 absolute where
        s is capped).
    """
    if not (np.isfinite(factor) and factor > 0):
        raise RangeError("a normalization factor is not a positive finite number")
    _, exponent = np.frexp(factor / smallest_sum)
    shift = min(NORM_BITS - 1 - int(exponent), 46)
    if shift < 1:
        raise RangeError(f"a normalization factor of {factor:.3g} is too large: check the scales")
    numerator = int(np.rint(np.ldexp(np.float64(factor), shift)))
    return NormalizeParams(numerator, shift, int(out.zero_point), out.qmin, out.qmax)


def normalized_matmul_params(value_scale: float, out: QuantParams) -> NormalizeParams:
    """Integers that divide attention's second product by the row sums of its codes.

    Args:
        value_scale: real value of one step of V, > 0. The codes' own scale cancels.
        out: the output's parameters, per tensor.

    Returns:
        The integers of `normalized_matmul`.

    Raises:
        RangeError: if the scales' quotient is not a positive finite number, or too large.
    """
    return normalize_params(float(value_scale) / float(out.scale), SMALLEST_CODE_SUM, out)


def _exponents(x: IntArray, multiplier: int, shift: int, limit: int) -> IntArray:
    """Distances from the row's maximum in grid steps, along the last axis."""
    x = x.astype(np.int64)
    distance = x.max(axis=-1, keepdims=True) - x
    return np.minimum(rescale(distance, scalar_dyadic(multiplier, shift)), limit)


def _mantissas(exponent: IntArray, grid_bits: int) -> tuple[IntArray, IntArray]:
    """Mantissas (ONE-scaled) and shifts of ``2**(-exponent / 2**grid_bits)``."""
    fraction = (exponent & ((1 << grid_bits) - 1)) << (15 - grid_bits)
    return exp2_fraction(fraction), exponent >> grid_bits


def code_weights(exponent: IntArray, p: CodeParams) -> IntArray:
    """Return the 8-bit weight of an exponent: ``(y + 2**(6+n)) >> (7+n)``, in its range.

    Args:
        exponent: any shape, 0 to ``p.limit`` grid steps.
        p: the integers from `code_params` or `numerics.log_codes.log_code_params`.

    Returns:
        int64 in [0, 255].
    """
    y, n = _mantissas(exponent, p.grid_bits)
    weights = (y + (np.int64(1) << (6 + n))) >> (7 + n)
    if p.zero_last:
        weights = np.where(exponent == p.limit, 0, weights)
    return twin_weights(weights, p.twin) if p.coarse else weights


def shiftmax_codes(x: IntArray, p: CodeParams) -> IntArray:
    """Unnormalized 8-bit exponentials relative to the row's maximum.

    Args:
        x: (..., N) integer scores within +-SCORE_LIMIT.
        p: the integers from `code_params` or `numerics.log_codes.log_code_params`.

    Returns:
        (..., N) int64 in [0, 255], scale 1/255; each row contains 255.
    """
    return code_weights(_exponents(x, p.multiplier, p.shift, p.limit), p)


def shiftmax(x: IntArray, p: ShiftmaxParams, norm: NormalizeParams) -> IntArray:
    """Compute normalized softmax codes for a given output quantizer.

    Args:
        x: (..., N) integer scores within +-SCORE_LIMIT, N <= 2**16.
        p: the integers from `shiftmax_params`.
        norm: from `numerics.nonlinear.softmax_params`.

    Returns:
        (..., N) int64 in [qmin, qmax].
    """
    y, n = _mantissas(_exponents(x, p.multiplier, p.shift, WIDE_LIMIT), LOG2_FRACTION_BITS)
    e = (y + ((np.int64(1) << n) >> 1)) >> n
    return normalize(e, e.sum(axis=-1, keepdims=True), norm)


def normalize(acc: IntArray, total: IntArray, p: NormalizeParams) -> IntArray:
    """``clamp(((acc * (M // total) + 2**(s-1)) >> s) + zero_point)``.

    Args:
        acc: (..., M, N), values in int32's range.
        total: (..., M, 1), at least the `smallest_sum` given to `normalize_params`.
        p: the integers.

    Returns:
        int64 in [qmin, qmax], the shape of `acc`.
    """
    multiplier = np.int64(p.numerator) // total.astype(np.int64)
    rounded = (acc.astype(np.int64) * multiplier + (np.int64(1) << (p.shift - 1))) >> p.shift
    return np.clip(rounded + p.zero_point, p.qmin, p.qmax)


def normalized_matmul(
    codes: IntArray, value: IntArray, value_zero_point: int, p: NormalizeParams
) -> IntArray:
    """``(codes @ value) / rowsum(codes)``, requantized: attention's second product.

    Args:
        codes: (..., M, N) from `shiftmax_codes`.
        value: (..., N, D) int8 codes of V.
        value_zero_point: of V.
        p: the integers from `normalized_matmul_params`.

    Returns:
        (..., M, D) int64 in [qmin, qmax].
    """
    acc = int_matmul(codes, np.subtract(value, value_zero_point, dtype=np.int64))
    total = codes.astype(np.int64).sum(axis=-1, keepdims=True)
    return normalize(acc, total, p)
