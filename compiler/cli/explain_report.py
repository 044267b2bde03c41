"""An explanation as text: findings, then short tables, the worst first."""

import sys
import textwrap

from vitq.compiler.stages.output_scores import OUTPUT_HEAD, table_cells
from vitq.compiler.studies.explanation import Changed, Explanation, LayerCost, NodeFigures
from vitq.compiler.support.tables import WIDTH, print_table

ROWS = 10
"""Of each table; --json and --html have all."""


def print_explanation(found: Explanation) -> None:
    """Print what `compiler.studies.explain.explain` found."""
    facts = found.settings
    agreed = found.agreement
    answers = "" if agreed is None else f"{100 * agreed:.1f} % of the answers as in float, "
    head = (
        f"{found.model}, {facts['recipe']}, {facts['method']}: {found.pictures} pictures, "
        f"{answers}SQNR {found.sqnr_db:.1f} dB "
        f"(signal over quantization error, of the {found.results})"
    )
    lines = [head, *(f"- {line}" for line in found.findings)]
    for line in lines:
        sys.stdout.write(textwrap.fill(line, WIDTH, subsequent_indent="  ") + "\n")
    if found.outputs:
        cells = [row[1:] for row in table_cells("", tuple(found.outputs))]
        print_table(OUTPUT_HEAD[1:], cells, "results beside the float model's")
    if found.layers:
        print_table(
            ["module", "rounded", "bits", "share", "alone dB", "gone without", "answers regained"],
            [layer_row(cost) for cost in found.layers[:ROWS]],
            f"dearest of {len(found.layers)} roundings: the {found.results}' error with each "
            "alone, and what goes without it",
        )
    print_table(
        ["module", "node", "bits", "own dB", "dB", "seen", "holds", "clipped"],
        [node_row(node) for node in worst_nodes(found)[:ROWS]],
        f"worst of {len(found.nodes)} nodes: own is what a node adds, dB what has come together",
    )
    if found.changed:
        print_table(
            ["picture", "right", "float", "integers"],
            [changed_row(found, picture) for picture in found.changed[:ROWS]],
            f"{len(found.changed)} answers changed: class and probability",
        )


def worst_nodes(found: Explanation) -> list[NodeFigures]:
    """All nodes, those first that add the most error for their signal."""
    return sorted(found.nodes, key=lambda node: node.own_sqnr_db)


def node_row(node: NodeFigures) -> list[str]:
    """Cells of one node."""
    return [
        node.module,
        node.name,
        "" if node.bits is None else str(node.bits),
        f"{node.own_sqnr_db:.1f}",
        f"{node.sqnr_db:.1f}",
        extent(node.seen),
        extent(node.reach),
        "" if node.reach is None else f"{100 * node.clipped:.2g} %",
    ]


def extent(pair: tuple[float, float] | None) -> str:
    """Return a range as text."""
    return "" if pair is None else f"{pair[0]:.3g} .. {pair[1]:.3g}"


def layer_row(cost: LayerCost) -> list[str]:
    """Cells of one rounding."""
    return [
        cost.module,
        "weights" if cost.part == "weight" else "inputs",
        str(cost.bits),
        f"{100 * cost.share:.1f} %",
        f"{cost.alone_db:.1f}",
        f"{100 * cost.gone:.1f} %",
        "-" if cost.regained is None else f"{cost.regained:+d}",
    ]


def changed_row(found: Explanation, picture: Changed) -> list[str]:
    """Cells of one picture."""
    return [
        picture.name or str(picture.index),
        "" if picture.label is None else found.called(picture.label),
        f"{found.called(picture.float_class)} ({100 * picture.float_probability:.0f} %)",
        f"{found.called(picture.integer_class)} ({100 * picture.integer_probability:.0f} %)",
    ]
