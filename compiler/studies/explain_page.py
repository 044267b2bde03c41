"""An explanation as one HTML file that can be mailed."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from vitq.compiler.studies.depth_plot import depth_plot
from vitq.compiler.studies.explanation import Changed, Explanation, NodeFigures
from vitq.compiler.support.page import (
    Cell,
    bars,
    escape,
    picture,
    section,
    table,
    tiles,
    write_page,
)

BAD_DB, WARN_DB = 10.0, 20.0
BARS = 16
SHOWN_PARTS = 3
"""Of a source's path: the report is mailed, and nobody else has these folders."""
HEAD = (
    "module", "operator", "bits", "adds dB", "come together dB", "cosine", "seen", "holds",
    "clipped %", "node", "source",
)  # fmt: skip


def write_explanation(found: Explanation, path: Path) -> None:
    """Write the report of an explanation.

    Args:
        found: what `compiler.studies.explain.explain` found.
        path: ``.html``, replaced if it is there.
    """
    write_page(path, f"{found.model}: where accuracy goes", _parts(found))


def _parts(found: Explanation) -> Iterator[str]:
    facts = found.settings
    calibration = facts["calibration"]
    yield f"<header><h1>{escape(found.model)}: where accuracy goes</h1>"
    yield (
        f"<p class='soft'>Recipe {escape(facts['recipe'])}, method {escape(facts['method'])}, "
        f"integer Softmax and GELU {escape(facts['nonlinear'])}, calibrated on "
        f"{calibration['pictures']} pictures of {escape(calibration['source'])}. Compared on "
        f"{found.pictures} pictures of {escape(found.source)}.</p></header>"
    )
    yield tiles(_figures(found))
    listed = "".join(f"<li>{escape(line)}</li>" for line in found.findings)
    yield section(
        "Findings", "Causes by their share of the error, with what mends them.",
        f"<ol class='findings'>{listed}</ol>",
    )  # fmt: skip
    yield section(
        "Along the depth",
        "SQNR: power of a node's float values over the power of the integers' error, in dB. Point "
        "at a dot for its name.",
        depth_plot(found.nodes),
    )
    yield from _roundings(found)
    yield section(
        "Blocks", "The graph, a block at a time; open one to see its nodes in order.",
        *_blocks(found.nodes),
    )  # fmt: skip
    rows = (_cells(node) for node in found.nodes)
    yield section(
        "All nodes",
        "Heads sort. Adds: the node's own error (weights, integer arithmetic, its quantizer). "
        "Clipped: float values outside of what "
        "the quantizer holds. Bits acc: an accumulator, not quantized.",
        table("nodes", HEAD, rows, search="module, operator, block"),
    )
    yield from _changed(found)
    yield f"<footer>vitq explain {escape(found.artifact)}</footer>"


def _figures(found: Explanation) -> Iterator[tuple[str, str]]:
    if found.agreement is not None:
        yield f"{100 * found.agreement:.1f} %", "of the answers are the float model's"
    yield f"{found.sqnr_db:.1f} dB", f"SQNR of the {found.results}"
    for score in found.outputs:
        yield f"{score.mean_cosine:.4f}", f"mean cosine of {score.name}"
        yield f"{score.least_cosine:.4f}", f"least cosine of {score.name}"
    if found.float_top1 is not None:
        yield f"{found.float_top1} of {found.pictures}", "right in float"
        yield f"{found.integer_top1} of {found.pictures}", "right in integers"
    if found.agreement is not None:
        yield str(len(found.changed)), "answers changed"


def _roundings(found: Explanation) -> Iterator[str]:
    if not found.variants:
        return
    values = [v.sqnr_db for v in found.variants]
    low, top = min(0.0, *values) - 1, max(20.0, *values)
    names = {"nothing": "as it is", "integer operators": "float Softmax, GELU, LayerNorm"}
    items = [
        (
            names.get(v.name, f"... and unrounded {v.name}"),
            (v.sqnr_db - low) / (top - low),
            f"{v.sqnr_db:.1f} dB"
            + ("" if v.agreement is None else f", {100 * v.agreement:.0f} % agree"),
        )
        for v in found.variants
    ]
    yield section(
        "What kind of rounding it is",
        f"SQNR of the {found.results} (mean over a few pictures) with the integer operators "
        "replaced by float ones, and then with one kind of rounding taken out. The longest bar is "
        "the cause.",
        bars(items),
    )
    dear = found.layers[:BARS]
    largest = max((cost.share for cost in dear), default=1.0)
    shares = bars(
        (f"{c.module} {_part(c.part)}", c.share / largest, f"{100 * c.share:.1f} %") for c in dear
    )
    rows = (
        [
            Cell(escape(c.module)),
            Cell(_part(c.part)),
            Cell(str(c.bits), c.bits),
            Cell(f"{100 * c.share:.1f}", c.share),
            Cell(f"{c.alone_db:.1f}", c.alone_db),
            Cell(f"{100 * c.gone:.1f}", c.gone),
            Cell("-" if c.regained is None else f"{c.regained:+d}", c.regained),
        ]
        for c in found.layers
    )
    head = (
        "module",
        "rounded",
        "bits",
        "share %",
        "alone dB",
        "gone without %",
        "answers regained",
    )
    yield section(
        "What widening each would give",
        "Share: of the errors that single roundings make in the float model; alone: SQNR of its "
        f"{found.results} then. Gone without: what goes of the quantized model's error when "
        "this rounding alone is taken out, which is little where many are bad.",
        shares,
        f"<details><summary>all {len(found.layers)}</summary>"
        f"{table('layers', head, rows, search='')}</details>",
    )


def _part(part: str) -> str:
    return "weights" if part == "weight" else "inputs"


def _blocks(nodes: Sequence[NodeFigures]) -> Iterator[str]:
    for place, (block, group) in enumerate(itertools.groupby(nodes, lambda node: node.block)):
        own = list(group)
        worst = min(own, key=lambda node: node.own_sqnr_db)
        rows = (_cells(node) for node in own)
        yield (
            f"<details><summary><b>{escape(block)}</b><span>{_nodes(len(own))}</span>"
            f"<span class='{_kind(worst.own_sqnr_db)}'>worst {worst.own_sqnr_db:.1f} dB: "
            f"{escape(worst.module)}</span><span>leaves {own[-1].sqnr_db:.1f} dB</span></summary>"
            f"{table(f'block{place}', HEAD, rows, search='')}</details>"
        )


def _nodes(number: int) -> str:
    return f"{number} node{'s' * (number > 1)}"


def _cells(node: NodeFigures) -> list[Cell]:
    bits = 32 if node.bits is None else node.bits
    return [
        Cell(escape(node.module)),
        Cell(escape(node.op)),
        Cell("acc" if node.bits is None else str(bits), bits),
        Cell(f"{node.own_sqnr_db:.1f}", node.own_sqnr_db, _kind(node.own_sqnr_db)),
        Cell(f"{node.sqnr_db:.1f}", node.sqnr_db, _kind(node.sqnr_db)),
        Cell(f"{node.cosine:.5f}", node.cosine),
        Cell(_extent(node.seen)),
        Cell(_extent(node.reach)),
        Cell(f"{100 * node.clipped:.3g}", node.clipped, "bad" * (node.lost > 0.5)),
        Cell(f"<small>{escape(node.name)}</small>"),
        Cell(f"<small>{escape('/'.join(node.source.split('/')[-SHOWN_PARTS:]))}</small>"),
    ]


def _kind(decibels: float) -> str:
    return "bad" if decibels < BAD_DB else "warn" if decibels < WARN_DB else ""


def _extent(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.3g} to {pair[1]:.3g}"


def _changed(found: Explanation) -> Iterator[str]:
    if not found.changed:
        return
    cards = "".join(
        _card(found, changed, picture(pixels, f"picture {changed.index}"))
        for changed, pixels in zip(found.changed, found.shown, strict=False)
    )
    more = len(found.changed) - len(found.shown)
    note = "Class and probability before and after." + f" {more} more are not shown." * (more > 0)
    yield section("Pictures whose answer changed", note, f"<div class='pictures'>{cards}</div>")


def _card(found: Explanation, changed: Changed, image: str) -> str:
    named = changed.name or f"picture {changed.index}"
    right = "" if changed.label is None else f"right: {escape(found.called(changed.label))}<br>"
    before, after = (escape(found.called(c)) for c in (changed.float_class, changed.integer_class))
    return (
        f"<figure>{image}<figcaption>{escape(named)}<br>{right}"
        f"float: {before} ({100 * changed.float_probability:.0f} %)<br>"
        f"integers: {after} ({100 * changed.integer_probability:.0f} %)"
        "</figcaption></figure>"
    )
