"""A recipe with more bits where an explanation found that they are missing.

Roundings below 8 bits are taken by the error that each makes alone, the dearest first, until they
make half of the sum of all; these get 8 bits, everything else keeps what it has.
"""

from pathlib import Path
from typing import Any

from vitq.compiler.studies.explanation import Explanation, LayerCost
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json, write_json
from vitq.numerics.errors import VitqError

HALF = 0.5
WIDEST = 8
FIELDS = {"weight": "weight_bits", "activation": "activation_bits"}


def dearest(layers: list[LayerCost]) -> list[LayerCost]:
    """Return the roundings that are worth more bits."""
    narrow = [cost for cost in layers if cost.bits < WIDEST]
    chosen, total = [], 0.0
    for cost in sorted(narrow, key=lambda cost: -cost.share):
        if total >= HALF * sum(other.share for other in narrow):
            break
        chosen.append(cost)
        total += cost.share
    return chosen


def write_wider(found: Explanation, path: Path) -> None:
    """Write a recipe's file for ``vitq quantize --recipe``.

    Args:
        found: with what each rounding costs.
        path: ``NAME.json``, replaced if it is there.

    Raises:
        VitqError: another suffix, nothing was measured, or nothing is narrow.
    """
    chosen = dearest(found.layers)
    if not chosen:
        why = "every layer has 8 bits" if found.layers else "leave out --removals 0"
        raise VitqError(f"--wider {path}: no layer to widen: {why}")
    stored = read_json(open_artifact(Path(found.artifact)).folder / QUANTIZE_NAME)
    content: dict[str, Any] = {**stored["provenance"]["recipe"], "name": path.stem}
    widened = {cost.layer: _entry(cost.layer, found, content, chosen) for cost in chosen}
    names = {*widened, *(entry["layer"] for entry in widened.values())}
    kept = [entry for entry in content.get("layers", []) if entry["layer"] not in names]
    content["layers"] = [*kept, *widened.values()]
    content["label"] = ""
    write_json(path, content)


def _entry(
    layer: str, found: Explanation, recipe: dict[str, Any], chosen: list[LayerCost]
) -> dict[str, Any]:
    """Return a layer's widths: 8 bits for the chosen parts, as they are for the other."""
    own = [cost for cost in found.layers if cost.layer == layer]
    bits = {field: recipe[field] for field in FIELDS.values()}
    bits |= {FIELDS[cost.part]: min(cost.bits, WIDEST) for cost in own}
    bits |= {FIELDS[cost.part]: WIDEST for cost in chosen if cost.layer == layer}
    module = own[0].module
    others = {cost.layer for cost in found.layers if cost.module == module}
    return {"layer": module if len(others) == 1 else layer, **bits}
