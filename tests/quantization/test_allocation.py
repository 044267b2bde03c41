"""The knapsack against trying every combination."""

import itertools

import numpy as np
import pytest

from vitq.numerics.errors import VitqError
from vitq.quantization.mixed.allocation import PARTS, Choice, allocate


def brute_force(layers: list[list[Choice]], budget: int) -> float:
    """The smallest sum of errors over all combinations that fit."""
    fits = [
        sum(choice.error for choice in combination)
        for combination in itertools.product(*layers)
        if sum(choice.cost for choice in combination) <= budget
    ]
    return min(fits)


@pytest.mark.parametrize("seed", range(12))
def test_best_of_all_combinations(seed: int) -> None:
    random = np.random.RandomState(seed)
    layers = [
        [Choice(int(c), float(e)) for c, e in zip(*random.randint(1, 50, (2, 4)), strict=True)]
        for _ in range(6)
    ]
    low, high = (sum(f(c.cost for c in options) for options in layers) for f in (min, max))
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        budget = int(low + share * (high - low))
        picked = allocate(layers, budget, "bytes")
        chosen = [options[index] for options, index in zip(layers, picked, strict=True)]
        assert sum(choice.cost for choice in chosen) <= budget
        assert sum(choice.error for choice in chosen) == brute_force(layers, budget)


def test_a_large_problem_stays_within_its_budget() -> None:
    random = np.random.RandomState(1)
    layers = [
        [Choice(int(bits * size), 4.0**-bits * size**0.5) for bits in (2, 3, 4, 6, 8)]
        for size in random.randint(10_000, 2_000_000, 74)
    ]
    budget = int(0.55 * sum(options[-1].cost for options in layers))
    picked = allocate(layers, budget, "bytes")
    used = sum(options[i].cost for options, i in zip(layers, picked, strict=True))
    assert (1 - 2 * len(layers) / PARTS) * budget <= used <= budget


def test_a_budget_below_the_narrowest_widths_is_refused() -> None:
    layers = [[Choice(10, 1.0), Choice(20, 0.0)]] * 3
    assert allocate(layers, 30, "bytes") == [0, 0, 0]
    assert allocate(layers, 60, "bytes") == [1, 1, 1]
    assert sorted(allocate(layers, 59, "bytes")) == [0, 1, 1]
    with pytest.raises(VitqError, match="29 bytes is too small: the narrowest widths need 30"):
        allocate(layers, 29, "bytes")
