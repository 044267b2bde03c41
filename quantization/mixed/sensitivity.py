"""How much each layer's widths change the logits, measured.

The model is quantized once with 8 bits everywhere. Then one matrix product at a time gets narrower
weights, or a narrower input, and nothing else changes; the logits of the calibration pictures are
compared with the float model's:

    noise = sum (x - y)**2 / sum x**2                        (the reciprocal of the SQNR)
    kl    = mean over pictures of sum_c p_c log(p_c / q_c),   p = softmax(x), q = softmax(y)

for logits x of the float model and y of the narrow one. Noise adds up over layers as long as it is
small, and is smooth where a confident model's divergence is almost nothing.

Narrow weights are rounded as the method does it, on what the layer reads at 8 bits everywhere; with
feedback only where that is many rows, or the pictures that decide the rounding would also say that
it is good. A narrow input gets the range with the smallest squared error at its width.

Cases go in execution order, and each begins where it differs: what lies before is computed once for
all of them.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.qparams import QScheme
from vitq.quantization.graph.graph import LAYER_OPS, Graph, Node, OpKind
from vitq.quantization.graph.outputs import LOGITS, OutputLayout
from vitq.quantization.mixed.costs import has_fixed_width, operand_source
from vitq.quantization.plan.attention_codes import narrow_codes
from vitq.quantization.plan.methods import Method, RangeRule, WeightRounding
from vitq.quantization.plan.widths import ACTIVATION, FULL_BITS, PARTS, PRODUCTS, WEIGHT
from vitq.quantization.ranges.layers import Inputs, Means, input_rows, round_layer
from vitq.quantization.ranges.observers import Observer, activation_qparams
from vitq.quantization.run.fake_quantize import GraphModule, joined
from vitq.quantization.run.sqnr import decibels

BATCH = 8
ROWS_PER_INPUT = 4
"""So many rows for each input of a layer make rounding with feedback fit more than these rows."""


@dataclass(frozen=True)
class Sensitivity:
    """One layer at one width, everything else at 8 bits.

    Attributes:
        layer: the matrix product's node.
        op: its operator.
        part: ``weight`` or ``activation`` (what it reads).
        bits: the width.
        noise: power of the logits' error over that of the logits.
        kl: divergence of the classes' probabilities from the float model's, nats.
    """

    layer: str
    op: str
    part: str
    bits: int
    noise: float
    kl: float

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio of the logits."""
        return decibels(1.0, self.noise)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


Track = Callable[[Iterable[Any], str, int], Iterable[Any]]


class Case(NamedTuple):
    """What is measured: one layer's part at one width; "", "" and 8 bits for all at 8 bits."""

    layer: str
    part: str
    bits: int


WHOLE = Case("", "", FULL_BITS)


def sensitivity_cases(
    graph: Graph, widths: Iterable[int], parts: Iterable[str] = PARTS
) -> list[Case]:
    """All cases of some widths below 8 and some parts, 8 bits everywhere first."""
    found = [WHOLE]
    for node in graph:
        if node.op not in PRODUCTS:
            continue
        own = {WEIGHT: node.op in LAYER_OPS, ACTIVATION: bool(free_inputs(graph, node))}
        found += [Case(node.name, p, bits) for p in parts if own[p] for bits in sorted(widths)]
    return found


def measure_sensitivity(
    quantized: Graph,
    float_logits: FloatArray,
    pixels: UInt8Array,
    cases: Iterable[Case],
    method: Method,
    track: Track,
) -> Iterator[Sensitivity]:
    """Measure some cases.

    Args:
        quantized: with 8 bits everywhere; not edited.
        float_logits: (N, classes) of the float model.
        pixels: (N, C, H, W) uint8.
        cases: of `sensitivity_cases`.
        method: how weights are rounded.
        track: wraps the measurements with a progress bar.

    Yields:
        One entry for each case, in execution order.
    """
    cases = list(cases)
    narrow_inputs = any(case.part == ACTIVATION for case in cases)
    seen = _observe_inputs(quantized, pixels) if narrow_inputs else {}
    layout = quantized.layout
    places = {node.name: place for place, node in enumerate(quantized)}

    def begin(case: Case) -> int:
        if case == WHOLE:
            return 0
        node = quantized.nodes[case.layer]
        sources = [node] if case.part == WEIGHT else free_inputs(quantized, node)
        return min(places[source.name] for source in sources)

    front = Front(quantized, pixels)
    for case in track(sorted(cases, key=begin), "sensitivity", len(cases)):
        front.move(begin(case))
        op, narrow = "", quantized
        if case != WHOLE:
            node = quantized.nodes[case.layer]
            op = node.op.value
            narrow = (
                _narrow_weight(quantized, node, case.bits, method, front.value(node.inputs[0]))
                if case.part == WEIGHT
                else _narrow_input(quantized, node, case.bits, seen)
            )
        figures = _compare(layout, front.logits(narrow), float_logits)
        yield Sensitivity(case.layer, op, case.part, case.bits, *figures)


class Front:
    """The values of a quantized network just before one of its nodes, for all pictures.

    Args:
        graph: quantized.
        pixels: (N, C, H, W) uint8.
    """

    def __init__(self, graph: Graph, pixels: UInt8Array) -> None:
        self._module = GraphModule(graph, simulate=True)
        self._batches = [batch.to(torch.float32) / 255 for batch in _batches(pixels)]
        self._values: list[dict[str, torch.Tensor]] = [{} for _ in self._batches]
        self._place = 0

    @torch.inference_mode()
    def move(self, place: int) -> None:
        """Go on to another node, by its place in execution order."""
        nodes = list(self._module.graph)[self._place : place]
        for values, batch in zip(self._values, self._batches, strict=True):
            self._module.advance(values, nodes, batch)
        self._place = place

    def value(self, name: str) -> torch.Tensor:
        """Return what an earlier node gives that a later one needs, of all pictures."""
        return torch.cat([values[name] for values in self._values])

    @torch.inference_mode()
    def logits(self, graph: Graph) -> FloatArray:
        """(N, classes) float64 of a graph that is the same up to here."""
        module, outputs = GraphModule(graph, simulate=True), []
        for before, batch in zip(self._values, self._batches, strict=True):
            values = dict(before)
            module.advance(values, list(graph)[self._place :], batch)
            results = [values[name] for name in graph.outputs.values()]
            outputs.append(joined(results, len(batch)).numpy())
        return np.concatenate(outputs).astype(np.float64)


def free_inputs(graph: Graph, node: Node) -> list[Node]:
    """Return the quantizers before a product whose widths a recipe chooses."""
    sources = [operand_source(graph, node, index) for index in range(len(node.inputs))]
    return [s for s in sources if not has_fixed_width(s) and s.out is not None]


def _narrow_weight(graph: Graph, node: Node, bits: int, method: Method, x: torch.Tensor) -> Graph:
    """Copy a graph with fewer bits for one layer's weights; the rest is shared."""
    changed = Graph(
        dict(graph.nodes), dict(graph.outputs), dict(graph.tensors), dict(graph.qparams)
    )
    narrow = copy.copy(node)
    narrow.params = dict(node.params)
    changed.nodes[node.name] = narrow
    rows = input_rows(graph, node, x)
    weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
    means = None
    if method.correct_bias:
        read = (weights @ rows.to(torch.float64)).numpy()
        matrix = graph.real(node, "weight")
        produced = matrix.reshape(len(matrix), -1) @ read + graph.real(node, "bias")
        means = Means(read, produced)
    if method.rounding is WeightRounding.FEEDBACK and len(rows) < ROWS_PER_INPUT * rows.shape[1]:
        method = replace(method, rounding=WeightRounding.CLIPPED)
    round_layer(changed, narrow, bits, method, Inputs(rows, weights, means))
    return changed


def _observe_inputs(graph: Graph, pixels: UInt8Array) -> dict[str, Observer]:
    """Return what the quantizers before all products see, by name."""
    products = (node for node in graph if node.op in PRODUCTS)
    names = {source.name for node in products for source in free_inputs(graph, node)}
    seen = {name: Observer(name, channels=False) for name in names}
    batches = _batches(pixels)

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.name in seen:
            seen[node.name].update(value, len(batches))

    module = GraphModule(graph, simulate=True, observer=watch)
    for batch in batches:
        module(batch)
    return seen


def _narrow_input(graph: Graph, node: Node, bits: int, seen: dict[str, Observer]) -> Graph:
    """Copy a graph in which what one product reads has fewer bits."""
    changed = Graph(dict(graph.nodes), dict(graph.outputs), graph.tensors, graph.qparams)
    for source in free_inputs(graph, node):
        narrow, out = copy.copy(source), source.out
        assert out is not None
        changed.nodes[source.name] = narrow
        if source.op is OpKind.EXP:
            narrow.attrs = dict(source.attrs)
            narrow_codes(narrow, bits)
            continue
        scheme = QScheme.SYMMETRIC if int(out.zero_point) == 0 else QScheme.AFFINE
        low, high = seen[source.name].range_of(RangeRule.MSE, bits, scheme)
        narrow.out = activation_qparams(low, high, bits, scheme)
    return changed


def _compare(
    layout: OutputLayout, logits: FloatArray, float_logits: FloatArray
) -> tuple[float, float]:
    """Noise and divergence of a quantized graph's results: the mean noise, the sum of losses.

    The loss of what ranks no classes is its noise (`quantization.ranges.losses`).
    """
    noises, losses = [], []
    wanted = layout.split(float_logits.astype(np.float64))
    for name, found in layout.split(logits).items():
        exact = wanted[name]
        noises.append(float(np.square(exact - found).sum() / np.square(exact).sum()))
        losses.append(noises[-1])
        if name == LOGITS and layout.classes is not None:
            p, q = _log_softmax(exact), _log_softmax(found)
            losses[-1] = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    return sum(noises) / len(noises), sum(losses)


def _batches(pixels: UInt8Array) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(np.ascontiguousarray(pixels)), BATCH))


def _log_softmax(x: FloatArray) -> FloatArray:
    shifted = x - x.max(axis=1, keepdims=True)
    normalized: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalized
