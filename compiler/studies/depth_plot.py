"""SQNR along the depth of a network, as SVG inside of a page."""

import itertools
from collections.abc import Callable, Iterator, Sequence

from vitq.compiler.studies.explanation import NodeFigures
from vitq.compiler.support.page import escape

WIDTH, HEIGHT = 1100, 314
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 44
LETTER = 6.6
"""Width of a letter of the axis."""
TOP_DB, BOTTOM_DB, STEP_DB = 60.0, -10.0, 10.0
"""Ends of the axis; what is better or worse stands at its end."""


def depth_plot(nodes: Sequence[NodeFigures]) -> str:
    """Draw what has accumulated as a line and what each node adds as dots, over bands of blocks."""
    shown = [node for node in nodes if node.op not in ("input", "constant", "expand")]
    step = (WIDTH - LEFT - RIGHT) / max(len(shown), 1)
    lowest = min((min(n.sqnr_db, n.own_sqnr_db) for n in shown), default=0.0)
    bottom = max(BOTTOM_DB, min(0.0, STEP_DB * (lowest // STEP_DB)))

    def x(place: int) -> float:
        return LEFT + step * (place + 0.5)

    def y(decibels: float) -> float:
        part = (TOP_DB - min(max(decibels, bottom), TOP_DB)) / (TOP_DB - bottom)
        return TOP + part * (HEIGHT - TOP - BOTTOM)

    parts = [*_bands(shown, step), *_grid(bottom, y)]
    points = " ".join(f"{x(i):.1f},{y(n.sqnr_db):.1f}" for i, n in enumerate(shown))
    parts.append(f"<polyline class='one' points='{points}'/>")
    for place, node in enumerate(shown):
        title = (
            f"<title>{escape(node.module)} ({escape(node.name)}): adds {node.own_sqnr_db:.1f} dB, "
            f"come together {node.sqnr_db:.1f} dB</title>"
        )
        for kind, value, radius in (("dot1", node.sqnr_db, 2.2), ("dot2", node.own_sqnr_db, 3.2)):
            place_of = f"cx='{x(place):.1f}' cy='{y(value):.1f}' r='{radius}'"
            parts.append(f"<circle class='{kind}' {place_of}>{title}</circle>")
    key = (
        "<p class='key'><i class='k1'></i>what has come together up to here"
        "<i class='k2'></i>what the node itself adds (higher is better)</p>"
    )
    return (
        f"{key}<div class='wide'><svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        f"aria-label='SQNR of each node along depth'>{''.join(parts)}</svg></div>"
    )


def _grid(bottom: float, y: Callable[[float], float]) -> Iterator[str]:
    value = bottom
    while value <= TOP_DB:
        at = y(value)
        yield f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{at:.1f}' y2='{at:.1f}'/>"
        yield f"<text x='{LEFT - 6}' y='{at + 4:.1f}' text-anchor='end'>{value:.0f}</text>"
        value += STEP_DB
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    yield f"<text transform='translate(12 {middle:.0f}) rotate(-90)' text-anchor='middle'>dB</text>"


def _bands(shown: Sequence[NodeFigures], step: float) -> Iterator[str]:
    """Shade every other block, and name each one below."""
    place = 0
    for number, (_, group) in enumerate(itertools.groupby(shown, _band)):
        nodes = list(group)
        width, left = step * len(nodes), LEFT + step * place
        if number % 2:
            size = f"width='{width:.1f}' height='{HEIGHT - TOP - BOTTOM}'"
            yield f"<rect class='band' x='{left:.1f}' y='{TOP}' {size}/>"
        yield _name(nodes[0].block, left, width)
        place += len(nodes)


def _band(node: NodeFigures) -> str:
    """Return a node's block; what stands before and behind the numbered ones is one band."""
    return node.block if node.block[-1:].isdigit() else ""


def _name(block: str, left: float, width: float) -> str:
    """Write a block's name below its band, as much of its end as fits.

    A band that is too narrow for that has its name in a line of its own, within the plot.
    """
    at, parts, line = left + width / 2, block.split("."), 0
    while len(parts) > 1 and LETTER * len(".".join(parts)) > width:
        parts = parts[1:]
    half = LETTER * len(".".join(parts)) / 2
    if 2 * half > width:
        line, at = 1, min(max(at, LEFT + half), WIDTH - RIGHT - half)
    place = f"x='{at:.1f}' y='{HEIGHT - BOTTOM + 18 + 15 * line}' text-anchor='middle'"
    return f"<text {place}>{escape('.'.join(parts))}</text>"
