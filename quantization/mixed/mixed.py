"""From measured sensitivities and a budget to a recipe with a width for each layer.

The errors of single layers are taken to add up, which holds as long as they are small. A layer's
error at a width is the noise that this width adds to that of 8 bits everywhere; more bits never
count as worse than fewer, whatever a few pictures say.
"""

from collections.abc import Sequence

from vitq.quantization.mixed.allocation import Choice, allocate
from vitq.quantization.mixed.budget import Budget
from vitq.quantization.mixed.costs import ProductCost
from vitq.quantization.mixed.sensitivity import Sensitivity
from vitq.quantization.plan.recipe import LayerBits, Nonlinear, Recipe
from vitq.quantization.plan.widths import ACTIVATION, FULL_BITS, WEIGHT


def mixed_recipe(
    costs: Sequence[ProductCost],
    measured: Sequence[Sensitivity],
    budget: Budget,
    nonlinear: Nonlinear,
) -> Recipe:
    """Return the widths of each layer with the smallest sum of errors within a budget.

    Args:
        costs: of every matrix product.
        measured: what `quantization.mixed.sensitivity.measure_sensitivity` found.
        budget: of bytes (activations then keep 8 bits, they take none) or bit operations.
        nonlinear: of the recipe.

    Returns:
        A recipe with widths for every product.

    Raises:
        VitqError: if the narrowest widths that were measured do not fit.
    """
    widths = [_layer_options(cost, measured, budget) for cost in costs]
    choices = [
        [Choice(_cost(cost, bits, budget), error) for bits, error in options]
        for cost, options in zip(costs, widths, strict=True)
    ]
    limit = budget.size_bytes if budget.size_bytes is not None else budget.bit_operations
    assert limit is not None
    what = "bytes" if budget.size_bytes is not None else "bit operations"
    picked = allocate(choices, limit, what)
    layers = tuple(options[index][0] for options, index in zip(widths, picked, strict=True))
    return Recipe(nonlinear=nonlinear, layers=layers, label=budget.label)


def _layer_options(
    cost: ProductCost, measured: Sequence[Sensitivity], budget: Budget
) -> list[tuple[LayerBits, float]]:
    """All widths of one layer and the error that each adds."""
    base = next(s.noise for s in measured if not s.layer)
    own = [s for s in measured if s.layer == cost.layer]
    weights = _errors([s for s in own if s.part == WEIGHT], base)
    inputs = _errors([s for s in own if s.part == ACTIVATION], base)
    if budget.size_bytes is not None:
        inputs = {FULL_BITS: 0.0}
    return [
        (LayerBits(cost.layer, weight_bits, input_bits), weight_error + input_error)
        for weight_bits, weight_error in weights.items()
        for input_bits, input_error in inputs.items()
    ]


def _errors(measured: Sequence[Sensitivity], base: float) -> dict[int, float]:
    """Width -> error, from 8 bits down; never smaller than that of a larger width."""
    errors, worst = {FULL_BITS: 0.0}, 0.0
    for entry in sorted(measured, key=lambda s: -s.bits):
        worst = max(worst, entry.noise - base)
        errors[entry.bits] = worst
    return errors


def _cost(cost: ProductCost, bits: LayerBits, budget: Budget) -> int:
    if budget.size_bytes is not None:
        return cost.size_bytes(bits.weight_bits)
    return cost.bit_operations(bits.weight_bits, bits.activation_bits)
