r"""Scale reparameterization behind a gate: RepQ-ViT's step where no LayerNorm absorbs it. Exact.

The product of a gate and a linear layer's output has channels of very different reach, and one
quantizer for all of them (SwiGLU's outliers before the second layer):

    y = g * u,   u = W_u x + b_u,   z = W y + b

y is linear in u. So for any r > 0, one for each channel,

    W_u' = W_u / r,   b_u' = b_u / r  (rows),   W' = W r  (columns)

give y' = y / r and the same z. With r = reach of a channel / mean reach, all channels of y' reach
equally far, which is what r1 of RepQ-ViT (arXiv:2212.08254, Eq. 13) does behind a LayerNorm.

Deviations: only scales move, as a shift of y is no shift of u; r stays in [1 / LARGEST, LARGEST]: u
has one quantizer for all channels, too, of 16 bits (`quantization.plan.placement`), and its quiet
channels keep 16 - log2(LARGEST) - 1 (headroom) = 11 of them; a channel without reach keeps r = 1.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.ranges.equalize import rows_of_leaves
from vitq.quantization.ranges.reparameterize import DEAD_RANGE, linear_readers
from vitq.quantization.run.fake_quantize import GraphModule

logger = logging.getLogger(__name__)

LARGEST = 16.0
RATIO = "gate_ratio"
"""Role under which the product keeps r, (C,): `quantization.explain` reads it, nothing computes
with it."""


class Gate(NamedTuple):
    """A product with a gate, and what absorbs its channels' scales.

    Attributes:
        product: y.
        linear: makes u.
        rows: (C,) row of `linear` for each channel of y.
        readers: linear layers that read y, and nothing else does.
    """

    product: Node
    linear: Node
    rows: IntArray
    readers: list[Node]


def find_gates(graph: Graph) -> list[Gate]:
    """Products of which an operand is some rows of a linear layer, used for nothing else."""
    found: dict[str, Gate] = {}
    for linear in graph:
        leaves = rows_of_leaves(graph, linear) if linear.op is OpKind.LINEAR else []
        for place, (leaf, rows) in enumerate(leaves):
            others = [r.reshape(-1) for i, (_, r) in enumerate(leaves) if i != place]
            gate = _gate(graph, linear, leaf, rows)
            if gate is not None and not np.isin(gate.rows, np.concatenate([*others, [-1]])).any():
                found.setdefault(gate.product.name, gate)
    return list(found.values())


def _gate(graph: Graph, linear: Node, leaf: Node, rows: IntArray) -> Gate | None:
    readers = graph.consumers(leaf.name)
    if len(readers) != 1 or readers[0].op is not OpKind.MULTIPLY:
        return None
    (product,) = readers
    flat = rows.reshape(-1, rows.shape[-1])
    alike = (flat == flat[:1]).all() and len(set(flat[0])) == flat.shape[1]
    squared = product.inputs[0] == product.inputs[1]
    if not alike or squared or product.shape != leaf.shape:
        return None
    linears = linear_readers(graph, product)
    return None if linears is None else Gate(product, linear, flat[0], linears)


def reparameterize_gates(graph: Graph, batches: Iterable[torch.Tensor]) -> None:
    """Let the channels behind each gate reach equally far.

    Args:
        graph: float, edited in place.
        batches: calibration pictures, (N, C, H, W) uint8; not looked at where there is no gate.
    """
    gates = {gate.product.name: gate for gate in find_gates(graph)}
    if not gates:
        return
    reach: dict[str, FloatArray] = {}

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.name in gates:
            rows = value.abs().reshape(-1, value.shape[-1]).amax(0).numpy().astype(np.float64)
            reach[node.name] = np.maximum(reach.get(node.name, 0.0), rows)

    module = GraphModule(graph, observer=watch)
    for batch in batches:
        module(batch)
    for name, gate in gates.items():
        absorb_ratio(graph, gate, _ratio(reach[name]))
    logger.info("reparameterize: channels behind %d gates reach equally far", len(gates))


def _ratio(reach: FloatArray) -> FloatArray:
    live = reach > DEAD_RANGE * max(float(reach.max()), 1e-30)
    mean = float(reach[live].mean()) if live.any() else 1.0
    return np.clip(np.where(live, reach / mean, 1.0), 1 / LARGEST, LARGEST)


def absorb_ratio(graph: Graph, gate: Gate, ratio: FloatArray) -> None:
    """Apply W_u', b_u' and W' with r = `ratio`, and keep r."""
    weight, bias = (graph.real(gate.linear, role).astype(np.float64) for role in ("weight", "bias"))
    weight[gate.rows] /= ratio[:, None]
    bias[gate.rows] /= ratio
    graph.set_param(gate.linear, "weight", weight.astype(np.float32))
    graph.set_param(gate.linear, "bias", bias.astype(np.float32))
    for reader in gate.readers:
        columns = graph.real(reader, "weight").astype(np.float64) * ratio
        graph.set_param(reader, "weight", columns.astype(np.float32))
    graph.set_param(gate.product, RATIO, ratio.astype(np.float32))
