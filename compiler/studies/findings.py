"""Causes of lost accuracy, with remedies, from the figures of an explanation.

With d = 1 / SQNR of the logits as the error that is shared out:

    | finding | when |
    |---|---|
    | what the float model reaches | labels are known |
    | ranges | clipping makes more than half of the own error of nodes below `CLEAR_DB` |
    | integer operators | d grows by more than `MAIN` of itself when they replace float ones |
    | weights, activations, residual | without that kind, d falls by more than `MAIN` of itself |

Ranges come first: wider codes do not mend them. The others go by their share.
"""

from collections.abc import Iterator

from vitq.compiler.studies.explanation import Explanation, LayerCost, NodeFigures, Variant
from vitq.numerics.families import Nonlinear

CLEAR_DB = 20.0
"""SQNR below which a node's own error is worth a finding."""
GOOD, GOOD_DB = 0.99, 20.0
"""Agreement and SQNR of the logits from which quantization costs little."""
MAIN = 0.3
"""Share of the error that makes a cause."""
LOSS = 0.01
"""Of the pictures: a loss of accuracy that is worth a search."""
NAMED = 3
WIDEST = 8
PARTS = {"weights": "weight", "activations": "activation"}


def findings(found: Explanation) -> list[str]:
    """Sentences for a person, the most important first."""
    lines, ranges = list(_accuracy(found)), list(_ranges(found))
    agrees = found.agreement is None or found.agreement >= GOOD
    if agrees and found.sqnr_db >= GOOD_DB and not ranges:
        lines.append(f"Quantization costs little here: {', '.join(_closeness(found))}.")
    shares = sorted(_shares(found.variants), key=lambda entry: -entry[1])
    causes = [_cause(found, name, share, bool(ranges)) for name, share in shares if share >= MAIN]
    return lines + ranges + causes


def _accuracy(found: Explanation) -> Iterator[str]:
    """Say what the float model reaches: where it is bad, quantization is not to blame."""
    if found.float_top1 is None or found.integer_top1 is None:
        return
    lost = found.float_top1 - found.integer_top1
    line = (
        f"Right answers of {found.pictures}: {found.float_top1} by the float model, "
        f"{found.integer_top1} by the integers."
    )
    if lost <= LOSS * found.pictures:
        line += (
            " Where that is too few, look at the float model, the labels and the preprocessing, "
            "not at quantization."
        )
    yield line


def _closeness(found: Explanation) -> Iterator[str]:
    """Say how near the results are: answers, or the angle of each result."""
    yield f"{found.sqnr_db:.1f} dB"
    if found.agreement is not None:
        yield f"{100 * found.agreement:.1f} % of the answers are the float model's"
    for score in found.outputs:
        yield f"cosine of {score.name} {score.mean_cosine:.4f}"


def _ranges(found: Explanation) -> Iterator[str]:
    """Name quantizers that cannot hold what these pictures have."""
    full = [n for n in found.nodes if n.lost > 0.5 and n.own_sqnr_db < CLEAR_DB]
    full.sort(key=lambda node: node.own_sqnr_db)
    if not full:
        return
    yield (
        f"Ranges: {len(full)} quantizers cannot hold what these pictures have, and lose more by "
        f"that than by rounding: {', '.join(_range(node) for node in full[:NAMED])}. Calibrate on "
        f"pictures like these, of all classes and more of them (now "
        f"{found.settings['calibration']['pictures']} of "
        f"{found.settings['calibration']['source']})."
    )


def _range(node: NodeFigures) -> str:
    assert node.reach is not None
    values = (*node.seen, *node.reach)
    low, high, least, most = (f"{value:.3g}" for value in values)
    clipped = f"{100 * node.clipped:.2g} % clipped"
    return f"{node.module} ({low} to {high}, holds {least} to {most}; {clipped})"


def _shares(variants: list[Variant]) -> Iterator[tuple[str, float]]:
    """Share of the error that goes with each kind of rounding."""
    if not variants:
        return
    error = {v.name: 10 ** (-v.sqnr_db / 10) for v in variants}
    integers, simulated = error.pop("nothing"), error.pop("integer operators")
    yield "integer operators", 1 - simulated / integers
    for name, rest in error.items():
        yield name, (simulated - rest) / integers


def _cause(found: Explanation, name: str, share: float, is_clipping: bool) -> str:
    if name == "integer operators":
        return _operators(found, share)
    dear = [cost for cost in found.layers if cost.part == PARTS.get(name)]
    bits = min((cost.bits for cost in dear[:NAMED]), default=2 * WIDEST)
    lost = f"{100 * min(share, 1):.0f} % of the {found.results}' error"
    line = f"{name.capitalize()} of {bits} bits: {lost}"
    if dear:
        line += f", first at {', '.join(_dear(cost) for cost in dear[:NAMED])}"
    return f"{line}. {_remedy(found, bits, is_clipping)}"


def _remedy(found: Explanation, bits: int, is_clipping: bool) -> str:
    """Say what mends a rounding; the widest codes cannot be widened."""
    if is_clipping:
        return "Mend the ranges above first."
    other = "" if found.settings["method"] == "best" else ", or use --method best"
    if bits < WIDEST:
        return f"Remedy: give these layers {WIDEST} bits (--wider writes the recipe){other}."
    return f"These are the widest: calibrate with more pictures{other}."


def _dear(cost: LayerCost) -> str:
    return f"{cost.module} (alone {cost.alone_db:.1f} dB)"


def _operators(found: Explanation, share: float) -> str:
    """Name the worst integer operators."""
    worst = sorted(
        (n for n in found.nodes if n.op in ("exp", "softmax", "gelu", "layer_norm", "mean")),
        key=lambda node: node.own_sqnr_db,
    )[:NAMED]
    named = ", ".join(f"{node.module} ({node.own_sqnr_db:.1f} dB)" for node in worst)
    line = (
        f"Integer Softmax, GELU or LayerNorm: {100 * share:.0f} % of the {found.results}' error, "
        f"worst {named}."
    )
    if found.settings["nonlinear"] != Nonlinear.VITQ:
        line += " Remedy: --nonlinear vitq, which is accurate for models that were not trained so."
    return line
