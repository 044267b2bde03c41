"""A measurement of sensitivity as a table and as a plot."""

from pathlib import Path
from typing import Any

from vitq.compiler.studies.sensitivity import Measurement
from vitq.compiler.support.plotting import pyplot, save_figure

NARROW = 0.16
"""Inches of the plot for each layer."""


def sensitivity_rows(result: Measurement) -> tuple[list[str], list[list[str]]]:
    """Heading and cells for a person's table: one row for each layer and part."""
    widths = sorted({entry.bits for entry in result.measured if entry.layer})
    base = result.measured[0]
    blank = [""] * (len(widths) - 1)
    rows = [["all at 8 bits", "", "", "", "", f"{base.sqnr_db:.1f}", *blank, f"{base.kl:.2g}"]]
    costs = {cost.layer: cost for cost in result.costs}
    for layer, part in _parts(result):
        entries = {e.bits: e for e in result.measured if (e.layer, e.part) == (layer, part)}
        weights, macs = (f"{v:.1f}" for v in (costs[layer].weights / 1e3, costs[layer].macs / 1e6))
        sqnr = [f"{entries[bits].sqnr_db:.1f}" for bits in widths]
        module = result.modules.get(layer, layer)
        rows.append([module, layer, part, weights, macs, *sqnr, f"{entries[widths[0]].kl:.2g}"])
    heads = [f"{bits} bits, dB" for bits in widths]
    last = f"{widths[0]} bits, KL"
    return ["module", "layer", "narrow", "k weights", "M MAC", *heads, last], rows


def _parts(result: Measurement) -> list[tuple[str, str]]:
    return list(dict.fromkeys((e.layer, e.part) for e in result.measured if e.layer))


def plot_sensitivity(result: Measurement, path: Path) -> None:
    """Draw the added noise of every layer at every width, weights above, inputs below."""
    plt = pyplot()
    parts = list(dict.fromkeys(e.part for e in result.measured if e.layer))
    count = max(sum(p == part for _, p in _parts(result)) for part in parts)
    size = (3 + NARROW * count, 3.2 * len(parts))
    figure, axes = plt.subplots(len(parts), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, part in zip(axes[:, 0], parts, strict=True):
        _panel(axis, result, part)
    figure.suptitle(f"{result.model}: one layer narrow, the others at 8 bits", fontsize=10)
    save_figure(figure, path)


def _panel(axis: Any, result: Measurement, part: str) -> None:
    base = result.measured[0].noise
    layers = [layer for layer, p in _parts(result) if p == part]
    names = [result.modules.get(layer, layer) for layer in layers]
    smallest = max(1e-2 * base, 1e-9)  # a logarithmic axis has no place for zero
    for bits in sorted({e.bits for e in result.measured if e.layer}):
        entries = {e.layer: e for e in result.measured if e.part == part and e.bits == bits}
        added = [max(entries[layer].noise - base, smallest) for layer in layers]
        axis.plot(range(len(layers)), added, marker="o", markersize=3, label=f"{bits} bits")
    axis.set_yscale("log")
    axis.set_xticks(range(len(layers)), names, rotation=90, fontsize=6)
    axis.set_ylabel("added noise / signal")
    axis.set_title(part, loc="left", fontsize=10)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
