"""``--max-drop``: 8 bits for the layers that matter, until the held-out answers are the float ones.

    recipe holds?  yes -> as it is
      no -> 8 bits everywhere hold?  no  -> these, and a warning (`compiler.stages.held_out`)
              yes -> order the narrow parts by what each alone costs (calibration pictures)
                  -> bisect for how many of them, the dearest first, need 8 bits

``recipe holds`` says of n held-out pictures, none of which calibrates or is evaluated on, that

    100 * (pictures with another answer than the float model's) <= percent * n

Top-1 accuracy on them cannot fall by more: an answer that was right and is not any more is another
one. Every trial is a whole quantization, with the method's own search at the trial's widths. What
was measured is kept for all bounds of one recipe:

    artifacts/<model>/widening/<hash>.json
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.stages.identity import quantize_fingerprint
from vitq.compiler.support.artifacts import fingerprint, is_current, read_json, write_json
from vitq.compiler.support.progress import progress_bar
from vitq.quantization.graph.identity import graph_hash
from vitq.quantization.graph.origins import label_of
from vitq.quantization.mixed.sensitivity import Case, Sensitivity, measure_sensitivity
from vitq.quantization.mixed.widening import (
    NarrowPart,
    dearest_first,
    fewest,
    narrow_parts,
    weight_bytes,
    widened_recipe,
    widest_recipe,
)
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.run.judge import Judgement, float_logits, judge

if TYPE_CHECKING:
    from vitq.compiler.stages.held_out import HeldOut
    from vitq.compiler.stages.quantize_options import QuantizeOptions
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.pictures.decoding import Pictures
    from vitq.quantization.pictures.preprocessing import Preprocessing
    from vitq.quantization.plan.methods import Method

logger = logging.getLogger(__name__)

AS_ASKED, ALL = "0", "all"
"""The trial of the recipe itself, and that of 8 bits everywhere; others are called by how many
parts have them."""
LISTED = 20
FOLDER = "widening"
PARTS = {"weight": "weights", "activation": "inputs"}


@dataclass(frozen=True)
class Given:
    """What is quantized, again and again.

    Attributes:
        options: with a bound.
        graph: float, as traced.
        shape: float, in the shape that is quantized; its products have names and sizes.
        prep: what its input means.
        pictures: those that calibrate.
        method: how.
        held: those that decide.
        quantize: a copy of the float graph with a recipe.
    """

    options: "QuantizeOptions"
    graph: "Graph"
    shape: "Graph"
    prep: "Preprocessing"
    pictures: "Pictures"
    method: "Method"
    held: "HeldOut"
    quantize: Callable[[Recipe], "Graph"]


@dataclass(frozen=True)
class Bounded:
    """What the search came to.

    Attributes:
        graph: quantized.
        recipe: its widths.
        found: how close it is on the held-out pictures.
        facts: for the provenance.
    """

    graph: "Graph"
    recipe: Recipe
    found: Judgement
    facts: dict[str, Any]


def quantize_within(given: Given) -> Bounded:
    """Quantize with a recipe, and with wider ones until the bound holds or nothing is narrow.

    Args:
        given: model, pictures and the bound.

    Returns:
        The first that holds, or 8 bits everywhere.
    """
    search = _Search(given, _kept(given))
    _say_coarse(search.percent, given.held)
    first = ALL if search.recipe(ALL) == search.recipe(AS_ASKED) else AS_ASKED
    if search.holds(first):
        return search.result(first, [])
    if first == ALL or not search.holds(ALL):
        return search.result(ALL, narrow_parts(search.graph(ALL), given.options.recipe))
    order = search.order()
    number = fewest(len(order), lambda n: search.holds(str(n)))
    return search.result(ALL if number == len(order) else str(number), order[:number])


def _say_coarse(percent: float, held: "HeldOut") -> None:
    number = len(held.pixels)
    if 0 < percent * number < 100:
        logger.warning(
            "--max-drop %g: of %d held-out pictures one is %.2g %%, so that no answer may change; "
            "give a --calib with more pictures than --calib-count, which judge finer",
            *(percent, number, 100 / number),
        )


@dataclass
class _Kept:
    """What was measured of a recipe, in its file.

    Attributes:
        path: of the file.
        wanted: its fingerprint.
        trials: how each came out.
        order: narrow parts, the dearest first, with the noise of each.
    """

    path: Path
    wanted: str
    trials: dict[str, Judgement] = field(default_factory=dict)
    order: list[tuple[NarrowPart, float]] = field(default_factory=list)

    def save(self) -> None:
        """Write the file."""
        trials = {name: vars(found) for name, found in self.trials.items()}
        order = [[*part, noise] for part, noise in self.order]
        write_json(self.path, {"fingerprint": self.wanted, "trials": trials, "order": order})


def _kept(given: Given) -> _Kept:
    """Read what an earlier run measured, whatever its bound was."""
    options = replace(given.options, max_drop=0.0)
    model = graph_hash(given.graph)
    wanted = fingerprint({"quantized": quantize_fingerprint(options), "model": model})
    path = options.artifact.folder.parent / FOLDER / f"{wanted[:16]}.json"
    found = _Kept(path, wanted)
    if is_current(path, wanted):
        content = read_json(path)
        found.trials = {name: Judgement(**trial) for name, trial in content["trials"].items()}
        found.order = [
            (NarrowPart(tuple(layers), part, bits), noise)
            for layers, part, bits, noise in content["order"]
        ]
    return found


class _Search:
    """Trials of one recipe with more and fewer parts at 8 bits.

    Args:
        given: what is quantized.
        kept: what is known already.
    """

    def __init__(self, given: Given, kept: _Kept) -> None:
        assert given.options.max_drop is not None
        self.percent = given.options.max_drop
        self._given, self._kept = given, kept
        self._graphs: dict[str, Graph] = {}

    def recipe(self, name: str) -> Recipe:
        """Return the widths of a trial."""
        given = replace(self._given.options.recipe, label=self._given.options.recipe_name)
        if name == ALL:
            return widest_recipe(given)
        parts = [part for part, _ in self._kept.order[: int(name)]]
        return widened_recipe(self._given.shape, given, parts)

    def graph(self, name: str) -> "Graph":
        """Return a trial's quantized graph: those that may be the result are still there."""
        if name not in self._graphs:
            self._graphs[name] = self._given.quantize(self.recipe(name))
        return self._graphs[name]

    def holds(self, name: str) -> bool:
        """Whether the bound holds in a trial, which is made if it was not before."""
        trials = self._kept.trials
        if name not in trials:
            started = time.perf_counter()
            found = trials[name] = self._judged(name)
            self._kept.save()
            logger.info(
                "quantize: %s: %d of %d held-out pictures get the float model's answer, "
                "SQNR %.1f dB (%.1f s)",
                *(self._described(name), found.agreeing, found.pictures, found.sqnr_db),
                time.perf_counter() - started,
            )
        is_held = trials[name].is_within(self.percent)
        if name != ALL and is_held and name in self._graphs:
            self._graphs = {name: self._graphs[name]}
        elif name != ALL:
            self._graphs.pop(name, None)
        return is_held

    def _judged(self, name: str) -> Judgement:
        held = self._given.held
        return judge(self.graph(name), held.pixels, held.logits)

    def _described(self, name: str) -> str:
        if name == AS_ASKED:
            return f"recipe {self._given.options.recipe.name}"
        if name == ALL:
            return "8 bits everywhere"
        return f"8 bits for {name} of {len(self._kept.order)} narrow parts"

    def order(self) -> list[NarrowPart]:
        """Return the narrow parts, the dearest first."""
        if not self._kept.order:
            graph = self.graph(ALL)
            parts = narrow_parts(graph, self._given.options.recipe)
            measured = list(self._measured(graph, [part.case for part in parts]))
            noise = {Case(entry.layer, entry.part, entry.bits): entry.noise for entry in measured}
            ordered = dearest_first(parts, measured)
            self._kept.order = [(part, noise[part.case]) for part in ordered]
            self._kept.save()
        return [part for part, _ in self._kept.order]

    def _measured(self, graph: "Graph", cases: Sequence[Case]) -> Iterator[Sensitivity]:
        """Narrow one part at a time, on the calibration pictures."""
        given = self._given
        pixels = given.pictures.pixels
        logits = float_logits(given.graph, pixels, given.prep.mean, given.prep.std)
        return measure_sensitivity(graph, logits, pixels, cases, given.method, progress_bar)

    def result(self, name: str, parts: Sequence[NarrowPart]) -> Bounded:
        """Return a trial as what was looked for, and say what it took.

        Args:
            name: of the trial.
            parts: that it made wider.
        """
        given, recipe = self._given, self.recipe(name)
        is_remembered = name not in self._graphs
        graph = self.graph(name)
        found = self._judged(name) if is_remembered else self._kept.trials[name]
        sizes = [weight_bytes(given.shape, r) for r in (given.options.recipe, recipe)]
        widened = [
            {"layers": [label_of(given.shape.nodes[layer]) for layer in part.layers]}
            | {"part": part.part, "bits": part.bits}
            for part in parts
        ]
        if found.is_within(self.percent):
            _say_widened(self.percent, widened, sizes)
        facts = {
            "percent": self.percent,
            "holds": found.is_within(self.percent),
            "widened": widened,
            "weight_bytes": {"before": sizes[0], "after": sizes[1]},
            "trials": {name: trial.agreeing for name, trial in self._kept.trials.items()},
        }
        return Bounded(graph, recipe, found, facts)


def _say_widened(percent: float, widened: list[dict[str, Any]], sizes: list[int]) -> None:
    """Say which layers, by their names in full, and what they cost."""
    if not widened:
        logger.info("quantize: --max-drop %g holds, no layer needs more bits", percent)
        return
    named: dict[str, list[str]] = {}
    for part in widened:
        named.setdefault(" and ".join(part["layers"]), []).append(PARTS[part["part"]])
    names = [f"{name} ({', '.join(parts)})" for name, parts in named.items()]
    more = f" and {len(names) - LISTED} more (quantize.json)" if len(names) > LISTED else ""
    logger.info(
        "quantize: --max-drop %g holds with 8 bits for %s%s; weights take %d bytes, were %d",
        *(percent, ", ".join(names[:LISTED]), more, sizes[1], sizes[0]),
    )
