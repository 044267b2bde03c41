"""Recipes for a budget, from made-up sensitivities."""

import pytest

from vitq.numerics.errors import VitqError
from vitq.quantization.mixed.budget import Budget
from vitq.quantization.mixed.costs import ProductCost
from vitq.quantization.mixed.mixed import mixed_recipe
from vitq.quantization.mixed.sensitivity import ACTIVATION, WEIGHT, Sensitivity
from vitq.quantization.plan.recipe import Recipe

COSTS = [
    ProductCost("first", 100, 800, 8),
    ProductCost("scores", 50, 0, None),
    ProductCost("values", 50, 0, 8),
    ProductCost("last", 200, 1600, None),
]
BASE = 1e-4


def measured(tender: str) -> list[Sensitivity]:
    """Noise grows fourfold with each bit less, and is a hundredfold in one layer."""
    found = [Sensitivity("", "", "", 8, BASE, 0.0)]
    for cost in COSTS:
        parts = [WEIGHT] if cost.weights else []
        parts += [ACTIVATION] if cost.layer != "first" else []
        for part in parts:
            for bits in (3, 4, 6):
                noise = 4.0**-bits * (100 if cost.layer == tender else 1)
                found.append(Sensitivity(cost.layer, "", part, bits, BASE + noise, 0.0))
    return found


def size(recipe: Recipe) -> int:
    bits = {layer.layer: layer.weight_bits for layer in recipe.layers}
    return sum(cost.size_bytes(bits[cost.layer]) for cost in COSTS)


def bit_operations(recipe: Recipe) -> int:
    found = zip(COSTS, recipe.layers, strict=True)
    return sum(c.bit_operations(bits.weight_bits, bits.activation_bits) for c, bits in found)


@pytest.mark.parametrize("budget", [900, 1300, 2000, 2400])
def test_bytes_hold_and_go_where_they_are_needed(budget: int) -> None:
    for tender, other in (("first", "last"), ("last", "first")):
        recipe = mixed_recipe(COSTS, measured(tender), Budget(size_bytes=budget), "vitq")
        bits = {layer.layer: layer for layer in recipe.layers}
        assert size(recipe) <= budget
        assert all(layer.activation_bits == 8 for layer in recipe.layers)
        assert bits[tender].weight_bits >= bits[other].weight_bits
        assert recipe.name == f"mixed-bytes{budget}"
    full = mixed_recipe(COSTS, measured("first"), Budget(size_bytes=2400), "vitq")
    assert {layer.weight_bits for layer in full.layers} == {8}


def test_bit_operations_hold_and_narrow_inputs_too() -> None:
    most = bit_operations(mixed_recipe(COSTS, measured("last"), Budget(None, 10**9), "vitq"))
    assert most == 64 * sum(cost.macs for cost in COSTS)
    recipe = mixed_recipe(COSTS, measured("last"), Budget(None, most // 2), "vitq")
    assert 0.4 * most < bit_operations(recipe) <= most // 2
    bits = {layer.layer: layer for layer in recipe.layers}
    assert bits["scores"].activation_bits < 8 and bits["values"].activation_bits < 8
    assert bits["first"].activation_bits == 8  # pixels
    assert bits["last"].activation_bits > bits["scores"].activation_bits


def test_more_bits_never_count_as_worse() -> None:
    odd = [e for e in measured("first") if (e.layer, e.bits) != ("last", 6)]
    odd.append(Sensitivity("last", "", WEIGHT, 6, BASE + 1.0, 0.0))  # worse than 3 bits
    odd.append(Sensitivity("last", "", ACTIVATION, 6, BASE, 0.0))
    recipe = mixed_recipe(COSTS, odd, Budget(size_bytes=1500), "vitq")
    assert recipe.layers[-1].weight_bits == 3  # 3, 4 and 6 bits are as bad, 8 do not fit


def test_what_does_not_fit_or_is_no_budget_is_refused() -> None:
    with pytest.raises(VitqError, match="899 bytes is too small: the narrowest widths need 900"):
        mixed_recipe(COSTS, measured("last"), Budget(size_bytes=899), "vitq")
    for budget in ((None, None), (1, 1)):
        with pytest.raises(VitqError, match="--budget-bytes and --budget-bitops"):
            Budget(*budget)
    with pytest.raises(VitqError, match="positive"):
        Budget(size_bytes=0)
