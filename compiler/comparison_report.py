"""A comparison of methods as a table and as a plot."""

from pathlib import Path
from typing import Any

from compiler.compare import Comparison
from compiler.evaluate import Row, table_rows
from compiler.plotting import pyplot, save_figure

BAR_SPAN = 0.8
"""Part of the distance between two recipes that their bars fill."""
RESULT_COLUMNS = slice(1, 6)
"""Of `table_rows`: top-1 to SQNR."""


def comparison_rows(result: Comparison) -> list[list[str]]:
    """Cells for a person's table, the float model first."""
    rows = [["-", "float", "-", *_figures(result.float_row)]]
    for cell in result.cells:
        figures = [f"refused: {cell.refused}"] if cell.row is None else _figures(cell.row)
        rows.append([cell.calibration, cell.recipe, cell.method, *figures])
    return rows


def _figures(row: Row) -> list[str]:
    return next(table_rows([row]))[RESULT_COLUMNS]


def plot_comparison(result: Comparison, path: Path) -> None:
    """Bars of the top-1 accuracy (without labels: agreement with float), grouped by recipe."""
    plt = pyplot()
    recipes = list(dict.fromkeys(cell.recipe for cell in result.cells))
    series = list(dict.fromkeys((cell.method, cell.calibration) for cell in result.cells))
    figure, axis = plt.subplots(figsize=(4 + 2.2 * len(recipes), 4.5), layout="constrained")
    width = BAR_SPAN / len(series)
    for index, (method, calibration) in enumerate(series):
        cells = [c for c in result.cells if (c.method, c.calibration) == (method, calibration)]
        places = [recipes.index(c.recipe) + (index + 0.5) * width - BAR_SPAN / 2 for c in cells]
        heights = [_percent(c.row) for c in cells]
        bars = axis.bar(places, heights, width, label=f"{method}, {_short(calibration)}")
        axis.bar_label(bars, fmt="%.1f", fontsize=7)
    axis.axhline(_percent(result.float_row), color="#444444", linestyle="--", label="float")
    axis.set_xticks(range(len(recipes)), recipes)
    labelled = result.float_row.top1 is not None
    axis.set_ylabel("top-1, %" if labelled else "agreement with float, %")
    axis.set_ylim(0, 105)
    axis.set_title(f"{result.model}, {result.float_row.images} pictures", fontsize=10)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _percent(row: Any) -> float:
    if row is None:
        return 0.0
    return float(100 * (row.agreement if row.top1 is None else row.top1 / row.images))


def _short(calibration: str) -> str:
    return Path(calibration).name
