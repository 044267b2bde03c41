r"""Ranges of channels that calibration left quiet fall back on what LayerNorm itself says.

Channel-wise ranges (RepQ-ViT, arXiv:2212.08254) are stretched until each channel fills all codes. A
channel that happened to be quiet on the calibration pictures is stretched most, and every other
picture saturates it: 32 pictures of one class are 32 nearly equal class tokens, whose channels move
a tenth of what other classes need, and the model then answers one class for everything.

LayerNorm bounds this without any picture. Channel c of its output is ``beta_c + gamma_c x_c``, and
over the channels of every row the x have mean 0 and mean square 1. So a channel spreads by about
``|gamma_c|``, whatever is calibrated on, and the evidence for a range [l, h] is its width in that
unit:

    evidence  e_c = (h_c - l_c) / |gamma_c|
    missing   t_c = max(clip(2 - 2 e_c / `BELIEVED`, 0, 1), clip(2 - 2 median(e) / `LIVELY`, 0, 1))
    prior     L_c = min(beta_c, m_c) - `SPREADS` |gamma_c|,       m_c = (l_c + h_c) / 2
              H_c = max(beta_c, m_c) + `SPREADS` |gamma_c|
    range     l'_c = l_c + t_c min(L_c - l_c, 0),     h'_c = h_c + t_c max(H_c - h_c, 0)

[L, H] holds the spread around both places where the channel's mean may be: beta, where it is for
the average channel, and m, where these pictures saw it. A range of `BELIEVED` spreads is taken as
it is, one of half of that says nothing; in between the ends move continuously. No range becomes
narrower, and a dead channel (gamma 0) stays dead. The price is resolution, in channels that are
quiet on all pictures there are.

RepQ-ViT has no such floor: its published calibration draws 32 pictures of a thousand classes.

Measured, W8/A8. Narrowest channel on 32 good pictures, in spreads: embedded digits 2.66, DeiT-Tiny
3.01 (of all 25 LayerNorms; medians 4.3 to 7.7). On one class, in the LayerNorms of the class token:
0.3 to 3.7, medians 0.6 to 1.8. SQNR in dB of the logits on pictures in neither the calibration nor
the evaluation set (digits: 300 of the training split, calibrated on only 0, only 1, only 6, and 32
times one picture; DeiT-Tiny: 68 pictures, calibrated on 40 crops of a goldfish, and of two others):

    | believed, lively, spreads | digits, repq | digits, best | DeiT-Tiny, repq |
    |---|---|---|---|
    | no floor | -1.3, 0.8, -0.3, -2.6 | 0.7, 5.3, 2.6, 23.0 | 2.4, 1.8, 2.1 |
    | 2, -, 4 | 24.4, 19.8, 20.5, 25.5 | 23.3, 26.7, 24.3, 25.7 | |
    | 2.5, -, 2 | 24.4, 21.2, 22.1, 24.3 | 23.4, 26.7, 24.5, 24.7 | 14.8, 10.6, 8.4 |
    | 2.5, -, 3 | 25.5, 23.7, 24.6, 25.8 | 23.7, 26.8, 24.5, 25.6 | 16.0, 11.6, 9.2 |
    | 2.5, -, 4 | 25.7, 24.4, 25.1, 25.7 | 24.1, 27.1, 24.6, 25.4 | 15.9, 11.9, 9.6 |
    | 3, -, 3 | 26.7, 25.6, 27.1, 27.0 | 24.5, 26.8, 25.6, 26.8 | |
    | 2.5, 4, 3 | | | -, 12.7, 12.8 |
    | 2.5, 4, 4 | | | -, 12.8, 12.8 |
    | 2.5, 4, 6 | | | -, 12.7, 12.8 |

`minmax` has 18.3, 18.9 and 19.7 dB on DeiT-Tiny's three. `BELIEVED` and `LIVELY` are such that no
channel and no median of either good set falls below: there every integer is what it was without.
"""

import logging
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.ranges.reparameterize import has_shift

logger = logging.getLogger(__name__)

BELIEVED = 2.5
"""Width in spreads from which on a channel's range is taken as calibration found it."""
LIVELY = 4.0
"""The same, of the median channel for all of a layer."""
SPREADS = 4.0
"""Half-width of the prior, as of few rows (`quantization.ranges.observers.FEW_ROWS_SIGMA`)."""


class Ranges(NamedTuple):
    """Ends of each channel's range.

    Attributes:
        low: (C,) lower ones.
        high: (C,) upper ones.
    """

    low: FloatArray
    high: FloatArray


def widen_quiet(graph: Graph, node: Node, seen: Ranges, chosen: Ranges | None = None) -> Ranges:
    """Widen the ranges of a norm's channels that calibration left quiet.

    Args:
        graph: the float graph, whose norm has its own gamma and beta, if it has one.
        node: the LayerNorm, or RMSNorm.
        seen: extremes on the calibration pictures: the evidence.
        chosen: what a search cut them to; the extremes themselves if None.

    Returns:
        The ranges to represent, float32.
    """
    low, high = (end.astype(np.float64) for end in seen)
    gamma = graph.real(node, "gamma").astype(np.float64)
    beta = graph.real(node, "beta").astype(np.float64) if has_shift(node) else 0.0
    spread, middle = np.abs(gamma), (low + high) / 2
    live = spread > 0
    evidence = np.where(live, (high - low) / np.where(live, spread, 1.0), np.inf)
    missing = np.clip(2 - 2 * evidence / BELIEVED, 0, 1)
    if live.any():
        whole = np.clip(2 - 2 * float(np.median(evidence[live])) / LIVELY, 0, 1)
        missing = np.where(live, np.maximum(missing, whole), 0.0)
    if missing.any():
        logger.debug("%s: %d of %d channels were quiet", node.name, (missing > 0).sum(), len(low))
    lower = np.minimum(beta, middle) - SPREADS * spread
    upper = np.maximum(beta, middle) + SPREADS * spread
    low, high = (end.astype(np.float64) for end in chosen or seen)
    low = low + missing * np.minimum(lower - low, 0)
    high = high + missing * np.maximum(upper - high, 0)
    return Ranges(low.astype(np.float32), high.astype(np.float32))
