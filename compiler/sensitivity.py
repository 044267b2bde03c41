"""Stage ``sensitivity``: what each layer's widths cost in accuracy, and recipes made from that.

artifacts/<model>/sensitivity/<hash>.json      the measurement, done once
recipes/mixed-<budget>.json  a recipe made of it
"""

import dataclasses
import functools
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.artifacts import fingerprint, is_current, read_json, write_json
from compiler.progress import progress_bar
from compiler.quantize import QuantizeOptions, prepare, quantize_fingerprint
from numerics.errors import VitqError

if TYPE_CHECKING:
    from quantization.costs import ProductCost
    from quantization.mixed import Budget
    from quantization.sensitivity import Sensitivity

logger = logging.getLogger(__name__)

MIXED = "mixed"
WIDTHS = (3, 4, 6)
"""Measured beside 8 bits."""


@dataclass(frozen=True)
class Measurement:
    """All layers of one model.

    Attributes:
        model: its name.
        pictures: how many were used.
        costs: of every matrix product, in execution order.
        measured: 8 bits everywhere first, then each layer, part and width.
        modules: layer -> name of the PyTorch module whose weights it has.
    """

    model: str
    pictures: int
    costs: "list[ProductCost]"
    measured: "list[Sensitivity]"
    modules: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


def sensitivity(options: QuantizeOptions, widths: tuple[int, ...] = WIDTHS) -> Measurement:
    """Measure, unless that was done before.

    Args:
        options: model, calibration pictures, method; the recipe is not looked at.
        widths: to measure, 2 to 7.

    Returns:
        The measurement.

    Raises:
        VitqError: widths out of range, or for any bad input of quantize.
    """
    if not widths or not all(2 <= bits <= 7 for bits in widths):
        raise VitqError("--widths: give some of 2 to 7, with commas; 8 is always there")
    options = dataclasses.replace(options, recipe="w8a8")
    wanted = fingerprint({"quantized": quantize_fingerprint(options), "widths": sorted(widths)})
    path = _folder(options, "sensitivity") / f"{wanted[:16]}.json"
    if is_current(path, wanted):
        logger.info("sensitivity: unchanged, %s is up to date", path)
        return _restore(read_json(path))
    started = time.perf_counter()
    result = _measure(options, widths)
    write_json(path, {"fingerprint": wanted, **result.to_json()})
    logger.info("sensitivity: %s (%.1f s)", path, time.perf_counter() - started)
    return result


def _measure(options: QuantizeOptions, widths: tuple[int, ...]) -> Measurement:
    import copy

    import numpy as np
    import torch

    from quantization.calibrate import quantize_graph
    from quantization.costs import product_costs
    from quantization.fake_quantize import GraphModule
    from quantization.methods import get_method
    from quantization.recipe import Recipe
    from quantization.rewrites import fold_normalization
    from quantization.sensitivity import BATCH, measure_sensitivity

    graph, prep, pictures = prepare(options)
    keys = {node.name: node.params["weight"] for node in graph if "weight" in node.params}
    modules = {name: key.removesuffix(".weight") for name, key in keys.items()}
    exact = copy.deepcopy(graph)
    fold_normalization(exact, prep.mean, prep.std)
    pixels = torch.from_numpy(pictures.pixels)
    module = GraphModule(exact)
    logits = np.concatenate([module(batch).numpy() for batch in torch.split(pixels, BATCH)])
    recipe = Recipe.parse(options.recipe, options.nonlinear)
    method = get_method(options.method)
    quantize_graph(graph, pixels, recipe, method, prep.mean, prep.std, progress_bar)
    track = functools.partial(progress_bar, unit="case")
    found = measure_sensitivity(graph, logits, pictures.pixels, widths, track)
    return Measurement(options.model, len(pictures), product_costs(graph), found, modules)


def _restore(content: dict[str, Any]) -> Measurement:
    from quantization.costs import ProductCost
    from quantization.sensitivity import Sensitivity

    costs = [ProductCost(**item) for item in content["costs"]]
    measured = [Sensitivity(**item) for item in content["measured"]]
    return Measurement(content["model"], content["pictures"], costs, measured, content["modules"])


def mixed_options(options: QuantizeOptions, budget: "Budget") -> QuantizeOptions:
    """Options whose recipe is made for a budget.

    Args:
        options: with any recipe.
        budget: bytes or bit operations.

    Returns:
        The same with the path of a recipe file, which was written.

    Raises:
        VitqError: if the budget is too small.
    """
    from quantization.mixed import mixed_recipe

    found = sensitivity(options)
    recipe = mixed_recipe(found.costs, found.measured, budget, options.nonlinear)
    path = _folder(options, "recipes") / f"{recipe.name}.json"
    write_json(path, recipe.to_json())
    logger.info("sensitivity: recipe %s", path)
    return dataclasses.replace(options, recipe=str(path))


def _folder(options: QuantizeOptions, name: str) -> Path:
    return options.artifact.folder.parent / name
