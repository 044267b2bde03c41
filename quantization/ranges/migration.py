r"""How much of the channels' differences behind a LayerNorm moves into the weights.

RepQ-ViT's reparameterization (`quantization.ranges.reparameterize`) gives every channel of a
LayerNorm's output the same range and multiplies the weights' columns by what that takes.
Activations then quantize as if each channel had its own scale; weights pay for it, as a row of them
has one scale for all columns. At 4-bit activations that is a good bargain, at 8-bit activations and
4-bit weights a bad one. SmoothQuant (arXiv:2211.10438, Eq. 4) moves a share a of the difference,

    ratio_c = r1_c**a,        r1 as in RepQ-ViT's Eq. 12 (range of the channel / mean range),

here searched for each LayerNorm: the a with the smallest error of the layers behind it, weights and
activations both quantized, on samples drawn by importance. The shift of each channel costs nothing
at any a, as it goes into biases: channels are centred in any case.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QScheme, QuantParams, dequantize, quantize
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.ranges.reparameterize import (
    DEAD_RANGE,
    absorb,
    has_shift,
    linear_readers,
)
from vitq.quantization.ranges.search import search_range

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
RANGE_SAMPLES = 1 << 15
RoundWeight = Callable[[Node, FloatArray, FloatArray], FloatArray]


class Migration(NamedTuple):
    """One way to move channels' differences.

    Attributes:
        ratio: (C,) what each channel is divided by.
        offset: (C,) what is added to it before.
        qparams: of the layer's quantizer then.
        error: of the layers behind.
    """

    ratio: FloatArray
    offset: FloatArray
    qparams: QuantParams
    error: float


def migrate(
    graph: Graph,
    node: Node,
    rows: FloatArray,
    extent: tuple[FloatArray, FloatArray],
    bits: int,
    round_weight: RoundWeight,
) -> QuantParams | None:
    """Choose the share for one LayerNorm and rewrite the weights around it.

    Args:
        graph: the float graph, edited in place.
        node: the LayerNorm.
        rows: (R, C) samples of its output.
        extent: the range of each channel, lower and upper ends.
        bits: width of the activations.
        round_weight: a layer, its (O, C) weight and the (R, C) quantized rows that it reads, to the
            real values that the weight would get.

    Returns:
        The layer-wise parameters, or None if something other than linear layers reads the
        LayerNorm (nothing is changed then).
    """
    linears = linear_readers(graph, node)
    low, high = (v.astype(np.float64) for v in extent)
    spans = high - low
    live = spans > DEAD_RANGE * max(float(spans.max()), 1e-30)
    if linears is None or not live.any():
        return None
    r1 = np.where(live, spans / spans[live].mean(), 1.0)
    offset = np.zeros_like(spans)
    if has_shift(node):
        offset = np.where(live, -(low + high) / 2, -graph.real(node, "beta"))
    weights = [(linear, graph.real(linear, "weight").astype(np.float64)) for linear in linears]
    tried = [
        _try_share(rows, extent, weights, r1**share, offset, bits, round_weight) for share in SHARES
    ]
    best = min(tried, key=lambda migration: migration.error)
    absorb(graph, node, linears, best.ratio, best.offset)
    return best.qparams


def _try_share(
    rows: FloatArray,
    extent: tuple[FloatArray, FloatArray],
    weights: list[tuple[Node, FloatArray]],
    ratio: FloatArray,
    offset: FloatArray,
    bits: int,
    round_weight: RoundWeight,
) -> Migration:
    """Quantize activations and weights with one ratio, and measure the layers' outputs."""
    moved = ((rows + offset) / ratio).astype(np.float32)
    few = moved[: max(64, RANGE_SAMPLES // moved.shape[1])]
    low, high = ((end + offset) / ratio for end in extent)
    reach = float(low.min()), float(high.max())
    qparams = search_range(few.reshape(-1), bits, QScheme.AFFINE, reach)
    rounded = dequantize(quantize(moved, qparams), qparams)
    error = 0.0
    for linear, weight in weights:
        scaled = (weight * ratio).astype(np.float32)
        real = round_weight(linear, scaled, rounded)
        difference = rounded @ real.T - moved @ scaled.T
        centred = difference - difference.mean(0)  # the bias takes the mean
        error += float(np.square(centred).mean())
    return Migration(ratio, offset, qparams, error)
