"""A comparison of methods as a table and as a plot."""

import math
from pathlib import Path

from vitq.compiler.stages.scores import Row, table_rows
from vitq.compiler.studies.compare_methods import Comparison
from vitq.compiler.studies.spread import Spread, Summary
from vitq.compiler.support.plotting import pyplot, save_figure

BAR_SPAN = 0.8
"""Part of the distance between two recipes that their bars fill."""
BAR_INCHES = 0.42
"""Width of a bar, so that the figure above it has its place."""
ZOOM_FROM, ZOOM_MARGIN = 50.0, 0.4
"""Where all bars are higher than that, the axis begins a part of their span below the lowest."""
RESULT_COLUMNS = slice(1, 6)
"""Of `table_rows`: top-1 to SQNR."""


def comparison_rows(result: Comparison) -> list[list[str]]:
    """Cells for a person's table, the float model first; of several seeds mean and spread."""
    rows = [["-", "float", "-", *_figures(result.float_row)]]
    single = {(c.calibration, c.recipe, c.method): c.row for c in result.cells}
    for summary in result.summaries:
        names = summary.calibration, summary.recipe, summary.method
        row = single[names]
        if summary.refused is not None or row is None:
            figures = [f"refused: {summary.refused}"]
        else:
            figures = _spreads(summary) if len(summary.seeds) > 1 else _figures(row)
        rows.append([*names, *figures])
    return rows


def _figures(row: Row) -> list[str]:
    return next(table_rows([row]))[RESULT_COLUMNS]


def _spreads(summary: Summary) -> list[str]:
    """Return the columns of `_figures` as mean and standard deviation."""
    counts = (f"/{summary.images}", 1.0, 1)
    return [
        _plus_minus(summary.top1, *counts),
        _plus_minus(summary.top5, *counts),
        _plus_minus(summary.agreement, " %", 100.0, 1),
        _plus_minus(summary.mean_cosine, "", 1.0, 4),
        _plus_minus(summary.sqnr_db, "", 1.0, 1),
    ]


def _plus_minus(spread: Spread | None, unit: str, factor: float, digits: int) -> str:
    if spread is None:
        return "-"
    mean, deviation = factor * spread.mean, factor * spread.deviation
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}{unit}"


def plot_comparison(result: Comparison, path: Path) -> None:
    """Bars of the top-1 accuracy (without labels: agreement with float), grouped by recipe.

    Of several seeds the mean, with the standard deviation as an error bar.
    """
    plt = pyplot()
    recipes = list(dict.fromkeys(cell.recipe for cell in result.cells))
    series = list(dict.fromkeys((cell.method, cell.calibration) for cell in result.cells))
    inches = max(2.2, BAR_INCHES * len(series) / BAR_SPAN)
    figure, axis = plt.subplots(figsize=(4 + inches * len(recipes), 4.5), layout="constrained")
    width = BAR_SPAN / len(series)
    for index, (method, calibration) in enumerate(series):
        own = [s for s in result.summaries if (s.method, s.calibration) == (method, calibration)]
        places = [recipes.index(s.recipe) + (index + 0.5) * width - BAR_SPAN / 2 for s in own]
        heights, errors = zip(*(_percent(summary) for summary in own), strict=True)
        label = f"{method}, {Path(calibration).name}"
        bars = axis.bar(places, heights, width, label=label)
        axis.bar_label(bars, fmt="%.1f", fontsize=7)
        if any(errors):
            axis.errorbar(places, heights, errors, fmt="none", ecolor="#444444", capsize=2)
    row = result.float_row
    labelled = row.top1 is not None
    ceiling = 100.0 if row.top1 is None else 100 * row.top1 / row.images
    axis.axhline(ceiling, color="#444444", linestyle="--", label="float")
    axis.set_xticks(range(len(recipes)), recipes)
    shown = [_percent(summary)[0] for summary in result.summaries if summary.refused is None]
    start, end = axis_ends([*shown, ceiling])
    what = "top-1, %" if labelled else "agreement with float, %"
    axis.set_ylabel(what if start == 0 else f"{what} (from {start:g})")
    axis.set_ylim(start, end)
    axis.set_title(f"{result.model}, {row.images} pictures", fontsize=10)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def axis_ends(percents: list[float]) -> tuple[float, float]:
    """Return ends of an axis that show how bars differ; from 0 where they differ much anyway."""
    low, high = min(percents), max(percents)
    if low < ZOOM_FROM:
        return 0.0, 105.0
    margin = max(1.0, ZOOM_MARGIN * (high - low))
    return max(0.0, math.floor(low - margin)), high + margin


def _percent(summary: Summary) -> tuple[float, float]:
    """Mean and deviation; 0 of what was refused."""
    spread, whole = summary.top1, summary.images
    if spread is None:
        spread, whole = summary.agreement, 1
    return (
        (0.0, 0.0)
        if spread is None
        else (
            100 * spread.mean / whole,
            100 * spread.deviation / whole,
        )
    )
