"""Exact integer matrix products and the proof that their accumulators fit into int32."""

import numpy as np

from numerics.arrays import IntArray
from numerics.dyadic import ACC_LIMIT

FLOAT64_EXACT = 2**53


def int_matmul(a: IntArray, b: IntArray) -> IntArray:
    """``a @ b`` in exact integers.

    The product runs through float64 BLAS, which is exact while every partial sum stays under
    2**53: with codes of at most 17 bits and fewer than 2**19 terms it always does.

    Args:
        a: (..., M, K) integers, ``|a| < 2**17``.
        b: (..., K, N) integers, ``|b| < 2**17``.

    Returns:
        (..., M, N) int64.
    """
    if a.shape[-1] * 2**34 > FLOAT64_EXACT:
        raise ValueError(f"an inner dimension of {a.shape[-1]} is not exact in float64")
    product = a.astype(np.float64) @ b.astype(np.float64)
    return product.astype(np.int64)


def weight_bounds(weight: IntArray, bias: IntArray, qmin: int, qmax: int) -> tuple[int, int]:
    """The exact smallest and largest accumulator of a linear layer over all inputs.

    Each term of ``sum_k x[k] * w[n, k] + bias[n]`` is extreme at x = qmin or x = qmax, and so are
    all partial sums' bounds (with the bias first).

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
