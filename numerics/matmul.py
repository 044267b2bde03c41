"""Exact integer matrix products and the proof that their accumulators fit into int32."""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import ACC_LIMIT

FLOAT32_EXACT = 2**24
FLOAT64_EXACT = 2**53


def int_matmul(a: IntArray, b: IntArray) -> IntArray:
    """Compute ``a @ b`` in exact integers.

    The product runs through floating point BLAS, which is exact in any order of summation as long
    as the sum of the terms' magnitudes is: float32 where K * max|a| * max|b| <= 2**24 (8-bit codes
    and up to 1032 terms), float64 otherwise.

    Args:
        a: (..., M, K) integers.
        b: (..., K, N) integers.

    Returns:
        (..., M, N) int64.

    Raises:
        ValueError: if not even float64 is exact (K * max|a| * max|b| > 2**53).
    """
    bound = product_bound(a.shape[-1], _magnitude(a), _magnitude(b))
    if bound > FLOAT64_EXACT:
        raise ValueError(f"a product that may reach {bound} is not exact in float64")
    dtype = np.float32 if bound <= FLOAT32_EXACT else np.float64
    return (a.astype(dtype) @ b.astype(dtype)).astype(np.int64)


def centred_matmul(a: IntArray, b: IntArray, a_zero_point: int, b_zero_point: int) -> IntArray:
    """Compute ``(a - a_zero_point) @ (b - b_zero_point)``: the product of two activations, exact.

    Args:
        a: (..., M, K) codes of 16 bits at most.
        b: (..., K, N) likewise.
        a_zero_point: of `a`.
        b_zero_point: of `b`.

    Returns:
        (..., M, N) int64; int32 where `relay_passes.check_accumulators` has proven it.
    """
    return int_matmul(
        np.subtract(a, a_zero_point, dtype=np.int64), np.subtract(b, b_zero_point, dtype=np.int64)
    )


def product_scale(a_scale: FloatArray | float, b_scale: FloatArray | float) -> FloatArray:
    """Return the real value of one step of a product, or of codes that a constant multiplies.

    Every multiplication of two scales runs through this function, in float64 and in this order, so
    that reference and passes cannot differ in the last bit of a factor.

    Args:
        a_scale: of the left operand; of the input, where the other is a weight.
        b_scale: of the right operand, broadcastable; or the constant.

    Returns:
        ``a_scale * b_scale`` in float64.
    """
    return np.asarray(np.asarray(a_scale, np.float64) * np.asarray(b_scale, np.float64))


def _magnitude(x: IntArray) -> int:
    return max(abs(int(x.max(initial=0))), abs(int(x.min(initial=0))))


def weight_bounds(weight: IntArray, bias: IntArray, qmin: int, qmax: int) -> tuple[int, int]:
    """Bounds of all partial sums of a linear layer's accumulators, over all inputs.

    Each term of ``sum_k x[k] * w[n, k] + bias[n]`` is extreme at x = qmin or x = qmax; terms of one
    sign alone bound every partial sum in any order, the bias included.

    Args:
        weight: (N, K) integers.
        bias: (N,) integers, zero-point correction included.
        qmin: smallest input code.
        qmax: largest input code.

    Returns:
        (low, high) over all channels, including every partial sum.
    """
    w = weight.astype(np.int64)
    at_min, at_max = w * qmin, w * qmax
    low = np.minimum(np.minimum(at_min, at_max), 0).sum(axis=1) + np.minimum(bias, 0)
    high = np.maximum(np.maximum(at_min, at_max), 0).sum(axis=1) + np.maximum(bias, 0)
    return int(low.min()), int(high.max())


def product_bound(terms: int, a_magnitude: int, b_magnitude: int) -> int:
    """Largest magnitude of a sum of `terms` products of codes."""
    return terms * a_magnitude * b_magnitude


def fits_accumulator(low: int, high: int) -> bool:
    """Whether every value in [low, high] is an int32 with its negative an int32 too."""
    return -ACC_LIMIT <= low and high <= ACC_LIMIT
