"""What each rounding costs: the logits with it taken out of the quantized model, and with it alone.

Both graphs have the same nodes (`quantization.explain.alignment`), so that a part of one can stand
in the other: a layer's weights, or the quantizers of what it reads. With d the geometric mean over
pictures of the power of the logits' error over that of the float model's logits,

    gone     (d(quantized) - d(quantized without the part)) / d(quantized)
    alone    d(float with only this part rounded)

(the mean of the errors themselves would be that of the two or three worst pictures).

The first is what widening this part, and nothing else, can give at most. Where many parts are bad,
taking out one changes nothing, and the first is noise; the second still tells them apart, and is
what parts are ranked by. DeiT-Tiny, W4/A4 by minmax, logits of -0.4 dB: no part is `gone` by more
than 6 %, and alone the inputs behind GELU leave 6 dB, most weights 20 dB. Quantizers are simulated
in float (`quantization.run.fake_quantize`); what the integer operators add to that is measured
apart.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.quantization.graph.graph import LAYER_OPS, Graph, Node, OpKind
from vitq.quantization.mixed.sensitivity import Front, free_inputs
from vitq.quantization.plan.widths import ACTIVATION, PRODUCTS, WEIGHT

NARROW_BITS = 8
"""Results of at most so many bits are what matrix products read; wider ones the residual stream."""
TINY = 1e-12
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]


class Kind(StrEnum):
    """Roundings that a recipe changes together."""

    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    RESIDUAL = "residual stream"


class Part(NamedTuple):
    """One layer's weights, or what it reads."""

    layer: str
    part: str


@dataclass(frozen=True)
class Cost:
    """What a rounding costs.

    Attributes:
        part: which.
        bits: its width now; of what a product of two activations reads, the smaller one.
        gone: share of the logits' error without it; negative where it hides another error.
        alone: error of the float model's logits with only this rounding, over their power.
        regained: answers that become the float model's without it, less those that are lost.
    """

    part: Part
    bits: int
    gone: float
    alone: float
    regained: int


def parts_of(graph: Graph) -> list[Part]:
    """All parts of a quantized graph, in execution order."""
    found = []
    for node in graph:
        if node.op in LAYER_OPS:
            found.append(Part(node.name, WEIGHT))
        if node.op in PRODUCTS and free_inputs(graph, node):
            found.append(Part(node.name, ACTIVATION))
    return found


def bits_of(graph: Graph, part: Part) -> int:
    """Return a part's width."""
    node = graph.nodes[part.layer]
    if part.part == WEIGHT:
        return graph.qparams[node.params["weight"]].qmax.bit_length() + 1
    return min(_width(source) for source in free_inputs(graph, node))


def _width(source: Node) -> int:
    """Return the bits of a quantizer, or of an attention weight's codes."""
    assert source.out is not None
    levels = source.attrs.get("log_levels")
    if source.op is OpKind.EXP and levels is not None:
        return int(levels - 1).bit_length()
    return (source.out.qmax - source.out.qmin).bit_length()


def swap(base: Graph, other: Graph, parts: Iterable[Part], quantized: Graph) -> Graph:
    """Return a graph with some parts of another one; the rest is shared.

    Args:
        base: quantized or aligned.
        other: the other one of both.
        parts: which.
        quantized: the one with the quantizers.
    """
    changed = Graph(dict(base.nodes), dict(base.outputs), dict(base.tensors), dict(base.qparams))
    for part in parts:
        node = quantized.nodes[part.layer]
        if part.part == ACTIVATION:
            names = [source.name for source in free_inputs(quantized, node)]
            _swap_quantizers(changed, other, names)
        else:
            taken = copy.copy(changed.nodes[node.name])
            taken.params = dict(other.nodes[node.name].params)
            changed.nodes[node.name] = taken
            for key in taken.params.values():
                changed.tensors[key] = other.tensors[key]
                if key in other.qparams:
                    changed.qparams[key] = other.qparams[key]
    return changed


def _swap_quantizers(changed: Graph, other: Graph, names: Iterable[str]) -> None:
    for name in names:
        taken = copy.copy(changed.nodes[name])
        taken.out = other.nodes[name].out
        changed.nodes[name] = taken


def without_kind(exact: Graph, quantized: Graph, kind: Kind) -> Graph:
    """Return the quantized graph without all roundings of a kind."""
    if kind is Kind.WEIGHTS:
        parts = [Part(node.name, WEIGHT) for node in quantized if node.op in LAYER_OPS]
        return swap(quantized, exact, parts, quantized)
    changed = swap(quantized, exact, [], quantized)
    names = [
        node.name
        for node in quantized
        if node.out is not None and node.op is not OpKind.INPUT and _is_of(node, kind)
    ]
    _swap_quantizers(changed, exact, names)
    return changed


def _is_of(node: Node, kind: Kind) -> bool:
    assert node.out is not None
    wide = (node.out.qmax - node.out.qmin).bit_length() > NARROW_BITS
    return wide is (kind is Kind.RESIDUAL)


def measure_costs(
    exact: Graph,
    quantized: Graph,
    float_logits: FloatArray,
    pixels: UInt8Array,
    parts: Iterable[Part],
    track: Track,
) -> Iterator[Cost]:
    """Measure some parts.

    Args:
        exact: from `quantization.explain.alignment.align`.
        quantized: the integer network; neither is edited.
        float_logits: (N, classes) of the float model.
        pixels: (N, C, H, W) uint8.
        parts: of `parts_of`.
        track: wraps the measurements with a progress bar.

    Yields:
        One entry for each part, in execution order.
    """
    places = {node.name: place for place, node in enumerate(quantized)}

    def begin(part: Part) -> int:
        node = quantized.nodes[part.layer]
        sources = [node] if part.part == WEIGHT else free_inputs(quantized, node)
        return min(places[source.name] for source in sources)

    fronts = Front(quantized, pixels), Front(exact, pixels)
    answers = _answers(float_logits)
    whole = Front(quantized, pixels).logits(quantized)
    error, right = noise(float_logits, whole), int((_answers(whole) == answers).sum())
    ordered = sorted(parts, key=begin)
    for part in track(ordered, "explain", len(ordered)):
        for front in fronts:
            front.move(begin(part))
        without = fronts[0].logits(swap(quantized, exact, [part], quantized))
        alone = fronts[1].logits(swap(exact, quantized, [part], quantized))
        yield Cost(
            part,
            bits_of(quantized, part),
            1 - noise(float_logits, without) / max(error, TINY),
            noise(float_logits, alone),
            int((_answers(without) == answers).sum()) - right,
        )


def _answers(rows: FloatArray) -> IntArray:
    """Return first choices; of results that rank no classes they mean nothing."""
    return rows.reshape(len(rows), -1).argmax(1)


def noise(exact: FloatArray, logits: FloatArray) -> float:
    """Return the error's power over the signal's, the geometric mean over pictures.

    Args:
        exact: (N, ...) of the float model, logits or other results.
        logits: (N, ...), as many for each picture.
    """
    wide = exact.astype(np.float64).reshape(len(exact), -1)
    error, power = (np.square(v).sum(1) for v in (wide - logits.reshape(wide.shape), wide))
    ratios = np.maximum(error, TINY) / np.maximum(power, TINY)
    return float(np.exp(np.log(ratios).mean()))
