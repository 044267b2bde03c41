"""The division by multiplications against NumPy's."""

import numpy as np
import pytest

from vitq.compiler.kernels.cuda.instructions.words import leading_zeros
from vitq.compiler.kernels.forms.arrays import Arrays
from vitq.compiler.kernels.forms.division import QUOTIENT_BITS, quotient
from vitq.numerics.arrays import IntArray

LARGEST = (1 << QUOTIENT_BITS) - 1


def divide(a: IntArray, b: IntArray) -> IntArray:
    zeros = leading_zeros(b).astype(np.int64)
    result: IntArray = quotient(Arrays(), a, b, zeros)
    return result


@pytest.mark.parametrize("seed", range(8))
def test_random_divisors_and_the_neighbours_of_multiples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = (2 ** rng.uniform(0, 31, 300_000)).astype(np.int64).clip(1, LARGEST)
    q = (2 ** rng.uniform(0, 31, b.size)).astype(np.int64).clip(0, LARGEST)
    for a in (b * q, b * q + b - 1, np.maximum(b * q - 1, 0), b * q + rng.integers(0, b)):
        np.testing.assert_array_equal(divide(a, b), a // b)


def test_every_sum_of_a_row() -> None:
    """All divisors that a row of up to 4096 codes has, with the largest quotients."""
    b = np.arange(1, 255 * 4096, dtype=np.int64)
    for a in (b * LARGEST, b * LARGEST + b - 1, b * (1 << 30) + b // 2, np.full(b.size, 1 << 31)):
        inside = a // b <= LARGEST
        np.testing.assert_array_equal(divide(a, b)[inside], (a // b)[inside])


def test_extremes() -> None:
    b = np.array([1, 2, 3, LARGEST, LARGEST - 1, 1 << 30, (1 << 30) - 1, (1 << 30) + 1], np.int64)
    for q in (0, 1, LARGEST - 1, LARGEST):
        for a in (b * q, b * q + b - 1):
            np.testing.assert_array_equal(divide(a, b), a // b)
