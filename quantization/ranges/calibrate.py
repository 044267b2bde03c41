"""From a float graph and pictures to a quantized graph.

    trace -> rewrites -> place quantizers -> observe -> reparameterize -> quantize weights

Methods that search (`quantization.plan.methods`) take the last two steps node by node.

Weights are rounded last: the input's normalization, LayerScale and the reparameterized scales are
in them by then.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch

from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import CODE_SCALE as IVIT_CODE_SCALE
from vitq.numerics.qparams import QScheme, QuantParams
from vitq.quantization.graph.graph import LAYER_OPS, Graph, Node, OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.graph.offsets import fold_offsets
from vitq.quantization.graph.outputs import LOGITS
from vitq.quantization.graph.rewrites import (
    defer_softmax_normalization,
    fold_channel_scales,
    fold_channel_shifts,
    refuse_final_softmax,
    select_tokens_early,
    separate_outputs,
)
from vitq.quantization.graph.rotary import simplify_rotations
from vitq.quantization.plan.attention_codes import WIDEST_BITS, use_codes
from vitq.quantization.plan.methods import Method, Search
from vitq.quantization.plan.nonlinear import mark_family
from vitq.quantization.plan.placement import Placement, Role, place_quantizers
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import PRODUCTS, LayerBits, layer_widths
from vitq.quantization.ranges.evidence import Ranges, widen_quiet
from vitq.quantization.ranges.gates import reparameterize_gates
from vitq.quantization.ranges.gelu_reach import feeds_gelu, gelu_input_reach, gelu_output_range
from vitq.quantization.ranges.hessian_walk import HessianWalk
from vitq.quantization.ranges.importance import measure_importance
from vitq.quantization.ranges.layers import (
    activation_scheme,
    quantize_constant,
    round_layer,
)
from vitq.quantization.ranges.observers import Observer, activation_qparams
from vitq.quantization.ranges.prediction_walk import PredictionWalk
from vitq.quantization.ranges.reparameterize import reparameterize_norm
from vitq.quantization.ranges.samples import selected_importance
from vitq.quantization.ranges.sequential import Progress, Walk
from vitq.quantization.ranges.steps import settle_dead_branches, settle_steps
from vitq.quantization.run.fake_quantize import GraphModule

logger = logging.getLogger(__name__)

BATCH = 8
RESIDUAL_HEADROOM = 2.0
"""16-bit ranges are this much wider than observed: a picture beyond the calibration data then
loses nothing, and one of sixteen bits is the price."""


SEARCHED = (Role.ACTIVATION, Role.POST_NORM)
_WALKS: dict[Search, type[Walk]] = {
    Search.VALUES: Walk,
    Search.HESSIAN: HessianWalk,
    Search.PREDICTION: PredictionWalk,
}


def _no_progress(items: Iterable[Any], _: str, __: int) -> Iterable[Any]:
    return items


def quantize_graph(
    graph: Graph,
    pixels: torch.Tensor,
    recipe: Recipe,
    method: Method,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    progress: Progress = _no_progress,
) -> Graph:
    """Post-training quantization.

    Args:
        graph: from `quantization.graph.tracing.trace`; edited in place.
        pixels: (N, C, H, W) uint8 calibration pictures.
        recipe: the widths.
        method: how ranges are found.
        mean: of the model's input normalization, in [0, 1] units.
        std: likewise.
        progress: wraps the batches with a progress bar.

    Returns:
        The quantized graph (the same object).

    Raises:
        VitqError: if weights or activations are not finite, or an operator cannot be quantized.
    """
    fold_offsets(graph)  # first: a mask of -Inf is no error
    graph.check_finite()
    refuse_final_softmax(graph)
    method = method.of_results(are_features=LOGITS not in graph.outputs)
    rewrite(graph, recipe.nonlinear, mean, std)
    if method.reparameterize:
        reparameterize_gates(graph, torch.split(pixels, BATCH))
    if recipe.nonlinear is not Nonlinear.VITQ:
        mark_family(graph, recipe.nonlinear)
    use_codes(graph, method.attention, recipe, method.log_zero, WIDEST_BITS)
    placement = place_quantizers(graph, recipe)
    observers = observe(graph, placement, pixels, progress, method)
    _assign_activations(graph, placement, observers, method)
    settle_steps(graph, placement, observers)
    widths = layer_widths(graph, recipe)
    if method.search is not Search.NONE:
        names = set(placement.roles) | {node.name for node in graph if node.op in PRODUCTS}
        if method.weighted:
            importance = measure_importance(graph, names, pixels)
        else:
            importance = selected_importance(graph)
        walk = _WALKS[method.search]
        walk(graph, placement, pixels, widths, method, importance).run(progress)
    else:
        _quantize_parameters(graph, widths, method)
    settle_dead_branches(graph, placement, observers)
    graph.remove_dead()
    return graph


def rewrite(
    graph: Graph, nonlinear: Nonlinear, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Give the float graph the shape that is quantized; its function stays the same.

    Args:
        graph: from `quantization.graph.tracing.trace`; edited in place.
        nonlinear: of the recipe.
        mean: of the model's input normalization, in [0, 1] units.
        std: likewise.
    """
    separate_outputs(graph)
    fold_offsets(graph)
    fold_normalization(graph, mean, std)
    fold_channel_scales(graph)
    fold_channel_shifts(graph)
    simplify_rotations(graph)
    select_tokens_early(graph)
    if nonlinear.defers_normalization:
        defer_softmax_normalization(graph)


def observe(
    graph: Graph,
    placement: Placement,
    pixels: torch.Tensor,
    progress: Progress = _no_progress,
    method: Method | None = None,
) -> dict[str, Observer]:
    """Run the float graph over the calibration pictures.

    Args:
        graph: float.
        placement: which results to watch.
        pixels: (N, C, H, W) uint8.
        progress: wraps the batches.
        method: what is not read by it is not kept: of what it searches for, only the extremes, and
            a tensor's sample only where it is cut by one. All if None.

    Returns:
        Node name -> observer.
    """
    if len(pixels) == 0:
        raise VitqError("no calibration pictures: give at least one")
    searching = method is not None and method.search is not Search.NONE
    observers = {
        name: Observer(
            name,
            channels=role is Role.POST_NORM,
            sampling=not searching or _is_settled(graph, placement, name),
        )
        for name, role in placement.roles.items()
        if role in (Role.ACTIVATION, Role.POST_NORM, Role.RESIDUAL, Role.FACTOR)
    }
    batches = list(torch.split(pixels, BATCH))

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.name in observers:
            observers[node.name].update(value, len(batches))

    module = GraphModule(graph, observer=watch)
    for batch in progress(batches, "calibrate", len(batches)):
        module(batch)
    return observers


def _is_settled(graph: Graph, placement: Placement, name: str) -> bool:
    """Whether no method searches a node's parameters: constants, and those that others share."""
    return graph.nodes[name].batch_axis is None or name in placement.ties.values()


def _assign_activations(
    graph: Graph, placement: Placement, observers: dict[str, Observer], method: Method
) -> None:
    """Give every placed quantizer its parameters, but for those that the method searches for."""
    searching = method.search is not Search.NONE
    for name, role in placement.roles.items():
        node, bits = graph.nodes[name], placement.bits[name]
        searched = searching and role in SEARCHED and not _is_settled(graph, placement, name)
        if name in placement.ties or searched:
            continue
        if role is Role.PIXELS:
            node.out = QuantParams.per_tensor(1 / 255, 0, 0, 255)
        elif role is Role.EXPONENTIAL:
            qmax = 2**bits - 1
            node.out = QuantParams.per_tensor(1 / qmax, 0, 0, qmax)
        elif role is Role.PROBABILITY:
            node.out = QuantParams.per_tensor(float(IVIT_CODE_SCALE), 0, 0, 255)
        elif role is Role.FACTOR:
            tied = [two for two, one in placement.ties.items() if one == name]
            reach = max(observers[one].reach for one in (name, *tied))
            node.out = activation_qparams(-reach, reach, bits, QScheme.SYMMETRIC)
        elif role is Role.RESIDUAL:
            node.out = _residual(graph, node, observers[name], bits)
        else:
            node.out = _activation(graph, node, observers[name], bits, method)
    for name in placement.ties:
        _share(graph, placement, observers, name)


def _share(graph: Graph, placement: Placement, observers: dict[str, Observer], name: str) -> None:
    """Take over a sum's parameters, unless that would clip a branch that the sum cancels."""
    source = name
    while source in placement.ties:
        source = placement.ties[source]
    node, shared = graph.nodes[name], graph.nodes[source].out
    assert shared is not None
    node.out = shared
    low, high = observers[name].low, observers[name].high
    zero, scale = int(shared.zero_point), float(shared.scale)
    if low < scale * (shared.qmin - zero - 1) or high > scale * (shared.qmax - zero + 1):
        node.out = _residual(graph, node, observers[name], placement.bits[name])


def _residual(graph: Graph, node: Node, observer: Observer, bits: int) -> QuantParams:
    """Parameters of a 16-bit value."""
    high = observer.reach * RESIDUAL_HEADROOM
    if feeds_gelu(graph, node):
        high = gelu_input_reach(node, observer.high, high)
    return activation_qparams(-high, high, bits, QScheme.SYMMETRIC)


def _activation(
    graph: Graph, node: Node, observer: Observer, bits: int, method: Method
) -> QuantParams:
    """Parameters of one 8-bit (or narrower) activation."""
    if method.reparameterize and observer.channels:
        channels = widen_quiet(graph, node, Ranges(*observer.channel_range()))
        qparams = reparameterize_norm(graph, node, *channels, bits)
        if qparams is not None:
            return qparams
    scheme = activation_scheme(graph, node)
    extent = observer.range_of(method.rule, bits, scheme)
    return activation_qparams(*gelu_output_range(node, *extent), bits, scheme)


def _quantize_parameters(graph: Graph, widths: dict[str, LayerBits], method: Method) -> None:
    """Round weights, biases and constants."""
    for node in graph:
        if node.op in LAYER_OPS:
            round_layer(graph, node, widths[node.name].weight_bits, method)
        elif node.op is OpKind.CONSTANT and node.out is not None:
            quantize_constant(graph, node)
