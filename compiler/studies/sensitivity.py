"""Stage ``sensitivity``: what each layer's widths cost in accuracy, and recipes made from that.

artifacts/<model>/sensitivity/<hash>.json             what was measured
                  recipes/<hash>/mixed-<budget>.json  a recipe made of it

Every case is kept when it is measured: a run that is stopped goes on where it was, and one that
wants other widths measures only those.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.stages.identity import quantize_fingerprint, traced_hash
from vitq.compiler.stages.quantize import chosen_method, prepare
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.where import mixed_artifact
from vitq.compiler.support.artifacts import fingerprint, is_current, read_json, write_json
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import PARTS, PRODUCTS, WEIGHT

if TYPE_CHECKING:
    from vitq.numerics.arrays import FloatArray
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.mixed.budget import Budget
    from vitq.quantization.mixed.costs import ProductCost
    from vitq.quantization.mixed.sensitivity import Sensitivity
    from vitq.quantization.pictures.decoding import Pictures
    from vitq.quantization.pictures.preprocessing import Preprocessing

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
        complete: ``part.bits`` of which every layer is there.
        modules: layer -> name of its PyTorch module (`quantization.graph.origins`).
    """

    model: str
    pictures: int
    costs: "list[ProductCost]"
    measured: "list[Sensitivity]"
    modules: dict[str, str]
    complete: list[str]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


def sensitivity(
    options: QuantizeOptions,
    widths: tuple[int, ...] = WIDTHS,
    parts: tuple[str, ...] = PARTS,
) -> Measurement:
    """Measure what was not measured before.

    Args:
        options: model, calibration pictures, method; the recipe is not looked at.
        widths: to measure, 2 to 7.
        parts: of each layer, of `PARTS`.

    Returns:
        The measurement of these widths and parts.

    Raises:
        VitqError: widths out of range, or for any bad input of quantize.
    """
    if not widths or not all(2 <= bits <= 7 for bits in widths):
        raise VitqError("--widths: give some of 2 to 7, with commas; 8 is always there")
    recipe = Recipe(nonlinear=options.recipe.nonlinear)
    options = dataclasses.replace(options, recipe=recipe, max_drop=None)
    wanted = fingerprint({
        "quantized": quantize_fingerprint(options),
        "graph": traced_hash(options),
    })
    path = _folder(options, "sensitivity") / f"{wanted[:16]}.json"
    kept = _restore(read_json(path)) if is_current(path, wanted) else None
    asked = {f"{part}.{bits}" for part in parts for bits in widths}
    if kept is None or not asked <= set(kept.complete):
        require_file(path)
        started = time.perf_counter()
        save = functools.partial(_save, path, wanted)
        kept = _measure(options, widths, parts, kept.measured if kept else [], save)
        logger.info("sensitivity: %s (%.1f s)", path, time.perf_counter() - started)
    else:
        logger.info("sensitivity: unchanged, %s is up to date", path)
    places = {cost.layer: place for place, cost in enumerate(kept.costs)}
    chosen = [e for e in kept.measured if not e.layer or f"{e.part}.{e.bits}" in asked]
    chosen.sort(key=lambda e: (places.get(e.layer, -1), PARTS.index(e.part or WEIGHT), e.bits))
    return dataclasses.replace(kept, measured=chosen)


def _save(path: Path, wanted: str, result: Measurement) -> None:
    write_json(path, {"fingerprint": wanted, **result.to_json()})


def _measure(
    options: QuantizeOptions,
    widths: tuple[int, ...],
    parts: tuple[str, ...],
    known: "list[Sensitivity]",
    save: Callable[[Measurement], None],
) -> Measurement:
    """Measure all cases that are not known, and save after each."""
    import torch

    from vitq.quantization.graph.origins import label_of
    from vitq.quantization.mixed.costs import product_costs
    from vitq.quantization.mixed.sensitivity import Case, measure_sensitivity, sensitivity_cases
    from vitq.quantization.ranges.calibrate import quantize_graph

    graph, prep, pictures = prepare(options)
    logits = _float_logits(graph, prep, pictures)
    method = chosen_method(options)
    pixels = torch.from_numpy(pictures.pixels)
    quantize_graph(graph, pixels, options.recipe, method, prep.mean, prep.std, progress_bar)
    modules = {node.name: label_of(node) for node in graph if node.op in PRODUCTS}
    measured = list(known)
    result = Measurement(
        options.model, len(pictures), product_costs(graph), measured, modules, complete=[]
    )
    done = {Case(entry.layer, entry.part, entry.bits) for entry in known}
    cases = [case for case in sensitivity_cases(graph, widths, parts) if case not in done]
    track = functools.partial(progress_bar, unit="case")
    for entry in measure_sensitivity(graph, logits, pictures.pixels, cases, method, track):
        measured.append(entry)
        save(result)
    done |= set(cases)
    complete = [
        f"{part}.{bits}"
        for part in PARTS
        for bits in range(2, 8)
        if done.issuperset(sensitivity_cases(graph, (bits,), (part,)))
    ]
    result = dataclasses.replace(result, complete=complete)
    save(result)
    return result


def _float_logits(graph: "Graph", prep: "Preprocessing", pictures: "Pictures") -> "FloatArray":
    """(N, classes) of the float model."""
    import copy

    import numpy as np
    import torch

    from vitq.quantization.graph.normalization import fold_normalization
    from vitq.quantization.mixed.sensitivity import BATCH
    from vitq.quantization.run.fake_quantize import GraphModule

    exact = copy.deepcopy(graph)
    fold_normalization(exact, prep.mean, prep.std)
    module = GraphModule(exact)
    batches = torch.split(torch.from_numpy(pictures.pixels), BATCH)
    return np.concatenate([module(batch).numpy() for batch in batches])


def _restore(content: dict[str, Any]) -> Measurement:
    from vitq.quantization.mixed.costs import ProductCost
    from vitq.quantization.mixed.sensitivity import Sensitivity

    return Measurement(
        content["model"],
        content["pictures"],
        [ProductCost(**item) for item in content["costs"]],
        [Sensitivity(**item) for item in content["measured"]],
        content["modules"],
        content["complete"],
    )


def mixed_options(options: QuantizeOptions, budget: "Budget") -> QuantizeOptions:
    """Options whose recipe is made for a budget.

    Args:
        options: with any recipe.
        budget: bytes or bit operations.

    Returns:
        The same with that recipe, which was also written to a file.

    Raises:
        VitqError: if the budget is too small, or there is a bound besides.
    """
    from vitq.quantization.mixed.mixed import mixed_recipe

    mixed_artifact(options, budget)  # refuses what does not go together before it is measured
    found = sensitivity(options, budget.widths(WIDTHS), budget.parts)
    recipe = mixed_recipe(found.costs, found.measured, budget, options.recipe.nonlinear)
    content = recipe.to_json()
    path = _folder(options, "recipes") / fingerprint(content)[:8] / f"{recipe.name}.json"
    write_json(path, content)
    logger.info("sensitivity: recipe %s", path)
    return dataclasses.replace(options, recipe=recipe)


def _folder(options: QuantizeOptions, name: str) -> Path:
    return options.artifact.folder.parent / name
