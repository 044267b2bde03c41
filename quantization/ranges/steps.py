r"""Steps that are not finer than the integers of the operators around them can express.

A 16-bit range is what was observed, and may be tiny: one token of many, and one that is next to 0
before training, a sum that its operands cancel, a branch that is always 0. Then the step is raised,
to where what is lost is far below an error that is there anyhow. No range becomes narrower.

**Sums.** An addition brings both operands to the sum's step by multipliers of one shift
(`numerics.add`), so an operand's step may be 2**13 of the sum's at most:

    s_sum >= s_operand / `FINEST`

The operand is off by half a step of its own, `FINEST` / 2 steps of the sum, before anything is
added; rounding the sum adds half a step to that. Where a search is yet to find an operand's step,
that of its whole range is taken, which no search exceeds; a sum that is searched itself is raised
behind the search.

**Normalizations.** LayerNorm and RMSNorm of C <= 4096 channels hold C**2 eps / s**2 in 60 bits
(`numerics.int_layernorm`), that is s > sqrt(eps) C / 2**30:

    s >= sqrt(eps) / `BELOW_EPS`

They divide by sqrt(eps) at least, so half a step becomes 2**-17 of gamma, an eighth of a step of
16-bit results that reach 8 gamma.

Who shares a value's parameters (a branch, the parts of a concatenation) goes on sharing them. What
is raised may be the operand of a sum, so it is repeated until all hold. Steps only grow, and to an
operand's step over `FINEST` or the norms' bound at most: it ends.

A branch that is always 0 has no step of its own: it takes its sum's, the last sum first, as the
operands of a dead sum are dead branches, too. (A sum that its operands cancel is one; those are not
dead and keep their steps, and then the above holds for it.)
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vitq.numerics.qparams import QScheme
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.plan.placement import Placement
from vitq.quantization.plan.rotations import is_rotation
from vitq.quantization.ranges.layers import quantize_constant
from vitq.quantization.ranges.observers import Observer, activation_qparams

logger = logging.getLogger(__name__)

FINEST = 2.0**12
"""Steps of a sum in one step of an operand; `numerics.add` allows less than 2**13."""
BELOW_EPS = 2.0**16
"""Steps in the square root of a normalization's eps; 4096 channels allow less than 2**18."""


def settle_steps(graph: Graph, placement: Placement, observers: dict[str, Observer]) -> None:
    """Give dead branches the scale of their sums and raise the steps that are too fine.

    Args:
        graph: edited in place; layers that read its values are not rounded yet.
        placement: of its quantizers.
        observers: of the values whose parameters are found by what was seen.
    """
    settle_dead_branches(graph, placement, observers)
    raised: dict[str, None] = {}
    while found := next(_too_fine(graph, placement, observers), None):
        node, step = found
        _raise_step(graph, node, step)
        raised[node.name] = None
    for name in raised:
        logger.info("%s: its step is raised to what the operators around it allow", name)


def settle_searched_step(graph: Graph, placement: Placement, node: Node) -> None:
    """Raise the step that a search gave a node, if that is a sum and it is too fine.

    Args:
        graph: edited in place; what the node reads has its parameters.
        placement: of its quantizers.
        node: not read by a rounded layer yet.
    """
    step = least_step(graph, placement, {}, node)
    if node.out is not None and step > node.out.scale.max():
        _raise_step(graph, node, step)


def settle_dead_branches(
    graph: Graph, placement: Placement, observers: dict[str, Observer]
) -> None:
    """Give a branch that is always 0 the scale of its sum.

    Zero is exact at any scale; 1 would overflow the addition's factors. A constant that has codes
    already (an addend of 0, as BatchNorm's before training) gets those of its new scale.

    Args:
        graph: edited in place.
        placement: of its quantizers.
        observers: node name -> what was seen.
    """
    for node in reversed(list(graph)):
        for source, _ in _operands(graph, placement, node):
            is_dead = source.name in observers and observers[source.name].reach == 0
            if is_dead and node.out is not None:
                source.out = node.out
                if source.op is OpKind.CONSTANT and source.params["value"] in graph.qparams:
                    quantize_constant(graph, source)


def least_step(
    graph: Graph, placement: Placement, observers: dict[str, Observer], node: Node
) -> np.float32:
    """Compute the smallest step that a node's operands allow.

    Args:
        graph: its nodes may lack parameters that a search is yet to find.
        placement: of its quantizers.
        observers: of those, whose range no search makes wider.
        node: any.

    Returns:
        The step; 0 for what is no sum of two scales.
    """
    least = np.float32(0)
    for source, factor in _operands(graph, placement, node):
        if source.out is not None:
            step = float(source.out.scale.max())
        else:
            reach = observers[source.name].reach
            bits = placement.bits[source.name]
            step = float(activation_qparams(-reach, reach, bits, QScheme.SYMMETRIC).scale)
        least = np.maximum(least, np.float32(step * factor / FINEST))
    return least


def _operands(graph: Graph, placement: Placement, node: Node) -> Iterator[tuple[Node, float]]:
    """Yield what quantizes each operand of a sum, and the factor on the way.

    The sum of a rotation's products is no such sum: one multiplier brings both to its step.
    """
    if node.op is not OpKind.ADD or is_rotation(graph, node):
        return
    for name in node.inputs:
        yield _source(graph, placement, name)


def _source(graph: Graph, placement: Placement, name: str) -> tuple[Node, float]:
    """Return what quantizes a value, looked up through layout, and the factor on the way."""
    source, factor = graph.nodes[name], 1.0
    while source.name not in placement.roles:
        factor *= source.attrs.get("factor", 1.0)
        source = graph.operand(source)
    return source, factor


def _too_fine(
    graph: Graph, placement: Placement, observers: dict[str, Observer]
) -> Iterator[tuple[Node, np.float32]]:
    """Yield nodes with a step below what the operators around them allow, and that."""
    for node in graph:
        found, step = node, np.float32(0)
        if node.op is OpKind.ADD:
            step = least_step(graph, placement, observers, node)
        elif node.op in (OpKind.LAYER_NORM, OpKind.RMS_NORM):
            found, factor = _source(graph, placement, node.inputs[0])
            step = np.float32(np.sqrt(node.attrs["eps"]) / BELOW_EPS / factor)
        if found.out is not None and step > found.out.scale.max():
            yield found, step


def _raise_step(graph: Graph, node: Node, step: np.float32) -> None:
    """Give a node, and all that share its parameters, a larger step."""
    shared = node.out
    assert shared is not None
    larger = replace(shared, scale=np.maximum(shared.scale, step))
    for other in graph:
        if other.out is shared:
            other.out = larger
