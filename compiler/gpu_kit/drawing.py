"""Inputs that kernels are compared on, drawn alike where a kit is made and where it runs.

    random    each code uniform between its activation's bounds
    extreme   each code the lower bound or the upper one, at random

Neither inputs nor results travel with a kit: it has their hashes.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RANDOM, EXTREME = "random", "extreme"
CASES = (RANDOM, EXTREME)


class Activation(NamedTuple):
    """An input that is not constant.

    Attributes:
        shape: of the tensor.
        dtype: its integer type.
        low: smallest code.
        high: largest code.
    """

    shape: Sequence[int]
    dtype: str
    low: int
    high: int


def draw(case: str, activations: Sequence[Activation]) -> list[Any]:
    """Arrays of codes, the same in every process that has the same NumPy.

    Args:
        case: one of `CASES`.
        activations: of one kernel, in order.
    """
    numbers = np.random.default_rng(CASES.index(case))
    one = _extreme if case == EXTREME else _random
    return [one(numbers, activation) for activation in activations]


def _random(numbers: np.random.Generator, activation: Activation) -> Any:
    shape, dtype, low, high = activation
    return numbers.integers(low, high, tuple(shape), dtype=np.dtype(dtype), endpoint=True)


def _extreme(numbers: np.random.Generator, activation: Activation) -> Any:
    shape, dtype, low, high = activation
    code = np.dtype(dtype).type
    return np.where(numbers.integers(0, 2, tuple(shape), dtype=np.bool_), code(high), code(low))


def digest(arrays: Sequence[Any]) -> str:
    """SHA-256 of the elements of all arrays."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
