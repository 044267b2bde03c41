"""Choose one option for each layer so that the sum of errors is smallest within a budget.

The multiple-choice knapsack problem, by dynamic programming over the budget. Costs are counted in
their greatest common divisor, which is exact; where that would take more than `PARTS` steps, in
coarser units, rounded up, so that the budget holds all the same.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitq.numerics.errors import VitqError

PARTS = 1 << 15


class Choice(NamedTuple):
    """One option of one layer.

    Attributes:
        cost: >= 0, whole.
        error: what it adds to the sum that is minimized.
    """

    cost: int
    error: float


def allocate(layers: Sequence[Sequence[Choice]], budget: int, what: str) -> list[int]:
    """Return the best option of every layer.

    Args:
        layers: the options of each layer, at least one.
        budget: limit of the sum of costs.
        what: unit of the budget, for the message.

    Returns:
        Index of the chosen option for each layer.

    Raises:
        VitqError: if not even the cheapest options fit.
    """
    floors = [min(choice.cost for choice in options) for options in layers]
    left = budget - sum(floors)
    if left < 0:
        raise VitqError(
            f"a budget of {budget} {what} is too small: the narrowest widths need {sum(floors)}"
        )
    extra = [
        [choice.cost - floor for choice in options]
        for options, floor in zip(layers, floors, strict=True)
    ]
    unit = math.gcd(*(cost for costs in extra for cost in costs)) or 1
    unit = max(unit, -(-left // PARTS))
    parts = [[-(-cost // unit) for cost in costs] for costs in extra]
    return _search(layers, parts, left // unit)


def _search(layers: Sequence[Sequence[Choice]], parts: list[list[int]], limit: int) -> list[int]:
    """Row by row the smallest error for each part of the budget, then the way back."""
    best = np.zeros(limit + 1)
    taken = np.zeros((len(layers), limit + 1), np.int64)
    for row, options in enumerate(layers):
        totals = np.full((len(options), limit + 1), np.inf)
        for index, choice in enumerate(options):
            used = parts[row][index]
            if used <= limit:
                totals[index, used:] = best[: limit + 1 - used] + choice.error
        taken[row] = totals.argmin(axis=0)
        best = totals.min(axis=0)
    chosen = []
    for row in range(len(layers) - 1, -1, -1):
        index = int(taken[row, limit])
        chosen.append(index)
        limit -= parts[row][index]
    return chosen[::-1]
