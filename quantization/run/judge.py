"""Compare a quantized graph with the float one on pictures that it was not calibrated on.

Quantizers are simulated in PyTorch (`quantization.run.fake_quantize`), so that a dozen pictures
cost less than a second of what calibrating took. Besides the logits, each quantizer is asked how
many of its values its codes cut off,

    saturation = share of values below (qmin - z - 1/2) s or above (qmax - z + 1/2) s,

which is what pictures unlike the calibration ones do to ranges that were taken from those alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.graph.origins import label_of
from vitq.quantization.graph.outputs import LOGITS, OutputLayout
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.retrieval import nearest_others
from vitq.quantization.run.sqnr import sqnr_db

BATCH = 8
WORST = 3
"""How many of the most saturated quantizers are named."""


@dataclass(frozen=True)
class Judgement:
    """How close a quantized model is to the float one.

    Attributes:
        pictures: how many were compared.
        agreeing: how many get the same answer; without classes how many have the same nearest
            neighbour among the others (`quantization.run.retrieval`).
        sqnr_db: of the logits; of several results that of the worst.
        saturation: label of a quantizer -> share of its values that are cut off, the largest first.
    """

    pictures: int
    agreeing: int
    sqnr_db: float
    saturation: dict[str, float]

    def is_within(self, percent: float) -> bool:
        """Whether no more than a percentage of the pictures get another answer."""
        return self.pictures - self.agreeing <= percent * self.pictures / 100 + 1e-9

    def to_json(self) -> dict[str, Any]:
        """All fields, rounded to what is worth telling."""
        return {
            "pictures": self.pictures,
            "agreeing": self.agreeing,
            "sqnr_db": round(self.sqnr_db, 2),
            "saturation": {name: round(share, 5) for name, share in self.saturation.items()},
        }


def float_logits(
    graph: Graph, pixels: UInt8Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> FloatArray:
    """Logits (N, classes), or rows, of a float graph as it was traced, before any rewrite."""
    module = GraphModule(graph)
    means, stds = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))
    parts = torch.from_numpy(np.array(pixels)).split(BATCH)
    found: FloatArray = torch.cat([module((part / 255 - means) / stds) for part in parts]).numpy()
    return found


def answers(rows: FloatArray, layout: OutputLayout) -> IntArray:
    """Return what a model says of each picture, (N,): a class, or the nearest other picture.

    Args:
        rows: of results.
        layout: of the rows; without classes the first result counts.
    """
    parts = layout.split(rows)
    if layout.classes is None:
        return nearest_others(next(iter(parts.values())))
    found: IntArray = parts[LOGITS].argmax(1)
    return found


def judge(graph: Graph, pixels: UInt8Array, wanted: FloatArray) -> Judgement:
    """Compare a quantized graph with float logits.

    Args:
        graph: quantized.
        pixels: (N, C, H, W) uint8.
        wanted: from `float_logits`.

    Returns:
        The figures.
    """
    beyond: dict[str, int] = {}
    counted: dict[str, int] = {}

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.out is None or node.batch_axis is None or twin_of(node) is not None:
            return
        scale, zero = float(node.out.scale), int(node.out.zero_point)
        low, high = (node.out.qmin - zero - 0.5) * scale, (node.out.qmax - zero + 0.5) * scale
        label = label_of(node)
        beyond[label] = beyond.get(label, 0) + int(((value < low) | (value > high)).sum())
        counted[label] = counted.get(label, 0) + value.numel()

    module = GraphModule(graph, simulate=True, observer=watch)
    logits = torch.cat([module(p) for p in torch.from_numpy(np.array(pixels)).split(BATCH)]).numpy()
    shares = {label: beyond[label] / counted[label] for label in beyond}
    worst = sorted(shares, key=lambda label: -shares[label])[:WORST]
    layout = graph.layout
    pairs = zip(*(layout.split(rows).values() for rows in (wanted, logits)), strict=True)
    return Judgement(
        len(pixels),
        int((answers(logits, layout) == answers(wanted, layout)).sum()),
        min(sqnr_db(*pair) for pair in pairs),
        {label: shares[label] for label in worst if shares[label] > 0},
    )
