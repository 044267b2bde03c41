r"""Scale reparameterization behind LayerNorm (RepQ-ViT, arXiv:2212.08254, Sec. 4.2, Eq. 9 to 15).

Calibration finds a quantizer (s_c, z_c) for each channel c of a LayerNorm's output. Inference wants
one for the layer. With s~ = mean(s), z~ = round(mean(z)), r1 = s / s~ and r2 = z - z~, the
quantizer of the layer
produces exactly the channel-wise codes if the LayerNorm's affine absorbs the difference,

    gamma' = gamma / r1,   beta' = (beta + s * r2) / r1,

and the next layer undoes it: W' = W * r1 (input channels), b' = b - W (s * r2). In real numbers
the network computes the same function; W' is quantized afterwards.

RMSNorm has no beta, so that nothing can be shifted: the channels keep one zero point, and each has
the step of its own reach, r1 = max |x_c| / mean(max |x|), in gamma' = gamma / r1 and W' = W * r1.

Deviations from the published code: the layer's zero point is rounded, and the rounded one is used
everywhere (there it stays a fractional mean, so that codes are no integers); a dead channel (no
range, e.g. gamma = 0) moves its constant into the next bias and takes no part in the means (there
its scale is 0 / 0);
gamma and beta are absorbed without dividing bias by weight.
"""

import logging

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QScheme, QuantParams, bounds
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.ranges.observers import activation_qparams

logger = logging.getLogger(__name__)

DEAD_RANGE = 1e-8
"""A channel whose range is below this fraction of the largest one is constant."""


def reparameterize_norm(
    graph: Graph, node: Node, low: FloatArray, high: FloatArray, bits: int
) -> QuantParams | None:
    """Turn channel-wise ranges into a layer-wise quantizer, rewriting the weights around it.

    Args:
        graph: the float graph, edited in place.
        node: the LayerNorm, or RMSNorm.
        low: (C,) smallest value of each channel on the calibration data.
        high: (C,) largest.
        bits: width of the activations.

    Returns:
        The layer-wise parameters, or None if something other than linear layers reads the norm
        (nothing is changed then).
    """
    linears = linear_readers(graph, node)
    if linears is None:
        logger.debug("%s: not only linear layers read it; it stays layer-wise", node.name)
        return None
    low, high = low.astype(np.float64), high.astype(np.float64)
    if not has_shift(node):
        return _scale_alone(graph, node, linears, (low, high), bits)
    qmin, qmax = bounds(bits, signed=True)
    live = high - low > DEAD_RANGE * max(float((high - low).max()), 1e-30)
    if not live.any():
        return None
    scale = np.where(live, (high - low) / (qmax - qmin), 1.0)
    zero = np.rint(qmin - low / scale)
    layer_scale = np.float32(scale[live].mean())
    layer_zero = int(np.clip(np.rint(zero[live].mean()), qmin, qmax))
    ratio = np.where(live, scale / float(layer_scale), 1.0)
    offset = np.where(live, scale * (zero - layer_zero), -graph.real(node, "beta"))
    absorb(graph, node, linears, ratio, offset)
    return QuantParams.per_tensor(float(layer_scale), layer_zero, qmin, qmax)


def has_shift(node: Node) -> bool:
    """Whether a norm adds a constant of its own, which can move its channels."""
    return "beta" in node.params


def _scale_alone(
    graph: Graph, node: Node, linears: list[Node], extent: tuple[FloatArray, FloatArray], bits: int
) -> QuantParams | None:
    """Give each channel the step of its reach; all keep the zero point of 0."""
    low, high = (np.minimum(extent[0], 0), np.maximum(extent[1], 0))
    reach = np.maximum(-low, high)
    live = reach > DEAD_RANGE * float(reach.max())
    if not live.any():
        return None
    ratio = np.where(live, reach / reach[live].mean(), 1.0)
    absorb(graph, node, linears, ratio, np.zeros_like(ratio))
    ends = float((low / ratio).min()), float((high / ratio).max())
    return activation_qparams(*ends, bits, QScheme.AFFINE)


def linear_readers(graph: Graph, node: Node) -> list[Node] | None:
    """All linear layers behind a norm, through layout that keeps its channels apart.

    Windows are among them: roll, partition and reverse move tokens, not channels. Zeros that a pad
    puts between tokens are not: the affine shifts what is real, and 0 would have to be shifted too.
    """
    found: list[Node] = []
    pending = [node]
    while pending:
        source = pending.pop()
        for reader in graph.consumers(source.name):
            if reader.op is OpKind.LINEAR:
                found.append(reader)
            elif reader.shape[-1:] == node.shape[-1:] and _keeps_channels(reader):
                pending.append(reader)
            else:
                return None
    return found or None


def _keeps_channels(reader: Node) -> bool:
    """Whether a reader moves whole rows; its last axis is as long as the one that it reads."""
    last = len(reader.shape) - 1
    if reader.op is OpKind.PERMUTE:
        return bool(reader.attrs["axes"][-1] == last)
    if reader.op is OpKind.TAKE:
        return bool(reader.attrs["axis"] != last)
    return reader.op in LAYOUT_OPS and reader.op is not OpKind.PAD


def absorb(
    graph: Graph, node: Node, linears: list[Node], ratio: FloatArray, offset: FloatArray
) -> None:
    """Apply gamma', beta', W', b' with r1 = `ratio` and s * r2 = `offset`, 0 without a beta."""
    graph.set_param(node, "gamma", (graph.real(node, "gamma") / ratio).astype(np.float32))
    if has_shift(node):
        beta = graph.real(node, "beta")
        graph.set_param(node, "beta", ((beta + offset) / ratio).astype(np.float32))
    for linear in linears:
        weight = graph.real(linear, "weight").astype(np.float64)
        bias = graph.real(linear, "bias").astype(np.float64)
        graph.set_param(linear, "bias", (bias - weight @ offset).astype(np.float32))
        graph.set_param(linear, "weight", (weight * ratio).astype(np.float32))
