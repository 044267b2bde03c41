"""A comparison's figures over several draws of calibration pictures: mean and spread."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitq.compiler.studies.cell import Cell


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds.

    Attributes:
        mean: of all.
        deviation: sample standard deviation (n - 1), 0 for a single seed.
        low: the smallest.
        high: the largest.
    """

    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize at least one value."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), deviation, float(min(values)), float(max(values)))


@dataclass(frozen=True)
class Summary:
    """One combination over all seeds.

    Attributes:
        calibration: source of the calibration pictures.
        recipe: widths.
        method: name.
        seeds: of the calibration pictures.
        images: how many pictures each seed was evaluated on.
        top1: correct first choices, None without labels; likewise the others of `Row`.
        top5: correct among the first five.
        agreement: with the float model's first choice, 0 to 1.
        mean_cosine: of the logits.
        sqnr_db: of the logits, dB.
        refused: why some seed could not be quantized; there are no figures then.
    """

    calibration: str
    recipe: str
    method: str
    seeds: tuple[int, ...]
    images: int
    top1: Spread | None = None
    top5: Spread | None = None
    agreement: Spread | None = None
    mean_cosine: Spread | None = None
    sqnr_db: Spread | None = None
    refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


FIGURES = ("top1", "top5", "agreement", "mean_cosine", "sqnr_db")


def summarize(cells: Iterable[Cell]) -> list[Summary]:
    """One summary for each combination, in the order of the cells."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.calibration, cell.recipe, cell.method), []).append(cell)
    return [_summary(names, group) for names, group in groups.items()]


def _summary(names: tuple[str, str, str], cells: list[Cell]) -> Summary:
    seeds = tuple(cell.seed for cell in cells)
    rows = [cell.row for cell in cells if cell.row is not None]
    if len(rows) < len(cells):
        reason = next(cell.refused for cell in cells if cell.row is None)
        return Summary(*names, seeds, 0, refused=reason)
    found: dict[str, Any] = {}
    for figure in FIGURES:
        values = [getattr(row, figure) for row in rows]
        found[figure] = None if None in values else Spread.of(values)
    return Summary(*names, seeds, rows[0].images, **found)
