"""More bits for the layers that matter, until a bound holds.

A part of a layer (its weights, or what it reads) that a recipe gives fewer than 8 bits is narrow.
Narrow parts are ordered by the noise that each alone adds to the logits of a model with 8 bits
everywhere (`quantization.mixed.sensitivity`), the dearest first, and

    recipe(n) = the recipe with 8 bits for the first n parts,   recipe(all) = 8 bits everywhere

is quantized for the n that bisection asks for: 2 + log2(parts) times instead of once for each
part. It ends at an n for which the bound was seen to hold, and not to hold for n - 1; that it
holds for every larger n, too, is what the order makes likely and nothing proves.

Layers that read one quantizer (q, k and v as three linear layers) are one part, as its codes have
one width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vitq.quantization.graph.graph import LAYER_OPS, Graph
from vitq.quantization.mixed.costs import product_costs
from vitq.quantization.mixed.sensitivity import Case, Sensitivity, free_inputs
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.plan.widths import (
    ACTIVATION,
    FULL_BITS,
    PRODUCTS,
    WEIGHT,
    layer_widths,
    product_names,
)


class NarrowPart(NamedTuple):
    """What one step of widening gives 8 bits.

    Attributes:
        layers: the products' nodes; several where they read one quantizer.
        part: ``weight`` or ``activation``.
        bits: the recipe's width.
    """

    layers: tuple[str, ...]
    part: str
    bits: int

    @property
    def case(self) -> Case:
        """What is measured of it."""
        return Case(self.layers[0], self.part, self.bits)


def narrow_parts(graph: Graph, recipe: Recipe) -> list[NarrowPart]:
    """Return what a recipe makes narrow, in execution order.

    Args:
        graph: quantized with `widest_recipe`.
        recipe: the widths.
    """
    widths = layer_widths(graph, recipe)
    products = [node for node in graph if node.op in PRODUCTS]
    weights = [
        NarrowPart((node.name,), WEIGHT, widths[node.name].weight_bits)
        for node in products
        if node.op in LAYER_OPS
    ]
    readers: dict[tuple[str, ...], list[str]] = {}
    for node in products:
        sources = tuple(source.name for source in free_inputs(graph, node))
        if sources and widths[node.name].activation_bits < FULL_BITS:
            readers.setdefault(sources, []).append(node.name)
    inputs = [
        NarrowPart(tuple(names), ACTIVATION, min(widths[name].activation_bits for name in names))
        for names in readers.values()
    ]
    places = {node.name: place for place, node in enumerate(products)}
    found = [part for part in (*weights, *inputs) if part.bits < FULL_BITS]
    return sorted(found, key=lambda part: places[part.layers[0]])


def dearest_first(parts: Iterable[NarrowPart], measured: Iterable[Sensitivity]) -> list[NarrowPart]:
    """Order parts by the noise of each alone; those that are alike stay in execution order."""
    noise = {Case(entry.layer, entry.part, entry.bits): entry.noise for entry in measured}
    return sorted(parts, key=lambda part: -noise[part.case])


def widest_recipe(recipe: Recipe) -> Recipe:
    """Return 8 bits everywhere."""
    kept = Recipe(residual_bits=recipe.residual_bits, nonlinear=recipe.nonlinear)
    return replace(kept, label=recipe.label)


def widened_recipe(graph: Graph, recipe: Recipe, parts: Sequence[NarrowPart]) -> Recipe:
    """Return a recipe with 8 bits for some parts, each layer by the name of its module.

    Args:
        graph: quantized.
        recipe: the widths.
        parts: of `narrow_parts`.
    """
    widths, nodes = layer_widths(graph, recipe), product_names(graph)
    modules = {node: name for name, node in reversed(nodes.items())}
    wider: dict[str, LayerBits] = {}
    for part in parts:
        for layer in part.layers:
            _, *bits = wider.get(layer, widths[layer])
            bits[0 if part.part == WEIGHT else 1] = FULL_BITS
            wider[layer] = LayerBits(modules[layer], *bits)
    kept = [bits for bits in recipe.layers if nodes[bits.layer] not in wider]
    return replace(recipe, layers=(*kept, *wider.values()))


def weight_bytes(graph: Graph, recipe: Recipe) -> int:
    """Bytes of all weights in a library.

    Args:
        graph: quantized, with any widths.
        recipe: the widths.
    """
    widths = layer_widths(graph, recipe)
    return sum(cost.size_bytes(widths[cost.layer].weight_bits) for cost in product_costs(graph))


def fewest(number: int, holds: Callable[[int], bool]) -> int:
    """Bisect for a number of steps that suffices where one fewer does not.

    Args:
        number: of all steps; they are known to suffice, and none not to.
        holds: asked for 1 to ``number - 1``.
    """
    fails, suffices = 0, number
    while suffices - fails > 1:
        middle = (fails + suffices) // 2
        if holds(middle):
            suffices = middle
        else:
            fails = middle
    return suffices
