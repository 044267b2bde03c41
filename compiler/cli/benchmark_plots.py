"""Pictures of a report; matplotlib is imported when one is drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.benchmark.profiling import KernelRow, Profile
from vitq.compiler.benchmark.rounds import Row
from vitq.compiler.support.plotting import pyplot, save_figure

INTEGER, OTHERS = "#1b6ca8", "#9aa5b1"
COLOURS = {"linear": "#1b6ca8", "attention": "#c8553d", "elementwise": "#6a994e"}
MARKER_AREA = 900
"""Area of the marker of a kernel that takes all the time."""
LABELLED = 0.01
"""Kernels with a smaller share of the time have no name in the picture."""
CLOSE = 0.6
"""Natural logarithm of the ratio below which two labels would overlap."""


def plot_rows(rows: list[Row], machine: dict[str, Any], path: Path, model: str) -> None:
    """Bars of the medians with whiskers from p10 to p90, a panel for each configuration."""
    plt = pyplot()
    panels = sorted({(row.batch, row.threads) for row in rows})
    height = 1.2 + 0.36 * max(sum((r.batch, r.threads) == panel for r in rows) for panel in panels)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, height * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        chosen = [row for row in rows if (row.batch, row.threads) == panel]
        _bars(axis, sorted(chosen, key=lambda row: -row.median_ms))
        axis.set_title(f"batch {panel[0]}, threads {panel[1]}", loc="left", fontsize=10)
        axis.set_xlabel("latency, ms (median; whiskers p10 to p90)")
    figure.suptitle(f"{model}, {machine['processor']}", fontsize=10)
    save_figure(figure, path)


def _bars(axis: Any, rows: list[Row]) -> None:
    names = [row.name for row in rows]
    medians = [row.median_ms for row in rows]
    below = [row.median_ms - row.p10_ms for row in rows]
    above = [row.p90_ms - row.median_ms for row in rows]
    colours = [INTEGER if name.startswith("vitq") else OTHERS for name in names]
    axis.barh(names, medians, xerr=[below, above], color=colours, capsize=3, height=0.7)
    for index, row in enumerate(rows):
        axis.annotate(
            f"{row.median_ms:.2f}",
            (row.p90_ms, index),
            textcoords="offset points",
            xytext=(6, 0),
            va="center",
            fontsize=8,
        )
    axis.set_xlim(0, 1.12 * max(row.p90_ms for row in rows))
    axis.spines[["top", "right"]].set_visible(False)


def plot_roofline(profile: Profile, machine: dict[str, Any], path: Path, model: str) -> None:
    """Kernels with products below the roofs of compute, L2 cache and memory.

    A marker's area is the kernel's share of the time.
    """
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
    kernels = [row for row in profile.kernels if row.mac]
    peak = 2 * profile.peak.gmac_s
    x = np.geomspace(0.5, 2 * max([*(row.intensity for row in kernels), 256]), 200)
    roofs = {"memory": profile.peak.memory_gb_s, "L2 cache": profile.peak.l2_gb_s}
    for style, (name, rate) in zip(("--", ":"), roofs.items(), strict=True):
        label = f"{name}, {rate:.0f} GB/s"
        axis.plot(x, np.minimum(peak, rate * x), style, color="#444444", label=label)
    axis.axhline(peak, color="#444444", label=f"8-bit dot product, {peak:.0f} GOPS")
    for family in dict.fromkeys(row.family for row in kernels):
        rows = [row for row in kernels if row.family == family]
        areas = [MARKER_AREA * row.total_us / 1e3 / profile.kernels_ms + 8 for row in rows]
        gops = [2 * row.gmac_s for row in rows]
        axis.scatter(
            [row.intensity for row in rows],
            gops,
            s=areas,
            color=COLOURS.get(family, OTHERS),
            alpha=0.7,
            label=family,
        )
    _label(axis, [row for row in kernels if row.total_us / 1e3 > LABELLED * profile.kernels_ms])
    axis.set(xscale="log", yscale="log", xlabel="operations for each byte that must move")
    axis.set_ylabel("GOPS (two for each MAC)")
    axis.set_title(
        f"{model}, {machine['processor']}, batch {profile.batch}, threads {profile.threads}",
        fontsize=10,
    )
    axis.legend(fontsize=8, markerscale=0.5)
    save_figure(figure, path)


def _label(axis: Any, rows: list[KernelRow]) -> None:
    """Names under the markers; where markers meet, one under the other."""
    placed: list[KernelRow] = []
    for row in sorted(rows, key=lambda row: (-row.gmac_s, row.intensity)):
        above = sum(
            abs(np.log(row.intensity / other.intensity)) < CLOSE
            and abs(np.log(row.gmac_s / other.gmac_s)) < CLOSE
            for other in placed
        )
        axis.annotate(
            row.name,
            (row.intensity, 2 * row.gmac_s),
            textcoords="offset points",
            xytext=(-18, -22 - 9 * above),
            fontsize=7,
        )
        placed.append(row)
