"""Float and integers side by side, node by node, over any number of pictures.

For each node n, with float operator f, integer operator i (its quantizer included) and inputs x of
the float network:

    exact      f(x)
    reached    what the whole integer network has at n
    own        i(Q(x)) - f(Q(x)),   Q(x): x as the integer network's codes would hold it

``reached - exact`` is the error that has accumulated up to n. ``own`` is what this node adds: its
rounded weights, its integer arithmetic and the quantizer of its result, but not what its inputs
lost before. All of it is summed over elements and pictures,

    SQNR = 10 log10(sum exact**2 / sum (reached - exact)**2),    own SQNR likewise,
    cosine = sum exact reached / sqrt(sum exact**2 sum reached**2),

so that only the sums are kept, and of the values those that a later node still reads. A float value
counts as clipped where it lies more than half a step outside of its quantizer's range.

Layout and scale operators without a quantizer add nothing and get no row.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.twin import coarse_range, threshold
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.outputs import join
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.run.fake_quantize import compute_node, joined, simulate_node
from vitq.quantization.run.int_tensor import IntTensor
from vitq.quantization.run.reference import IntegerReference, pixel_codes
from vitq.quantization.run.sqnr import TINY, decibels

SILENT = 120.0
"""dB below the signal at which an error is rounding of float32."""


@dataclass
class Sums:
    """What is summed of one node, over elements and pictures.

    Attributes:
        count: of elements.
        exact: sum of squares of the float values.
        reached: of the integers' real values.
        product: sum of products of both.
        error: sum of squares of their difference.
        own: of what the node itself adds.
        clipped: how many float values its quantizer cannot hold.
        lost: sum of squares of what those lie beyond its range.
        low: smallest float value.
        high: largest.
    """

    count: int = 0
    exact: float = 0.0
    reached: float = 0.0
    product: float = 0.0
    error: float = 0.0
    own: float = 0.0
    clipped: int = 0
    lost: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio of what the integer network has here."""
        return decibels(self.exact, self.error, SILENT)

    @property
    def own_sqnr_db(self) -> float:
        """The same of what the node itself adds."""
        return decibels(self.exact, self.own, SILENT)

    @property
    def cosine(self) -> float:
        """Of the float values with the integers' real ones."""
        return self.product / max(math.sqrt(self.exact * self.reached), TINY)

    @property
    def clipped_share(self) -> float:
        """Share of the float values that the quantizer cannot hold."""
        return self.clipped / max(self.count, 1)


def reach_of(node: Node) -> tuple[float, float] | None:
    """Return the smallest and the largest value that a node's quantizer holds, None without one."""
    out = node.out
    if out is None:
        return None
    scale, zero = float(out.scale), int(out.zero_point)
    low, high = scale * (out.qmin - zero), scale * (out.qmax - zero)
    twin = twin_of(node)
    if twin is not None:
        coarse = coarse_range(twin, out)
        high = float(threshold(twin, out)) + float(coarse.scale) * coarse.qmax
    return low, high


@dataclass
class Walk:
    """Both networks in step.

    Attributes:
        exact: from `quantization.explain.alignment.align`.
        quantized: the integer network.
        sums: node name -> what was summed so far, in execution order.
    """

    exact: Graph
    quantized: Graph
    sums: dict[str, Sums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare what every batch needs."""
        self._reference = IntegerReference(self.quantized)
        self._last_use = {n: node.name for node in self.quantized for n in node.inputs}
        self._params = {
            node.name: {
                role: torch.from_numpy(np.array(self.exact.real(node, role)))
                for role in node.params
            }
            for node in self.exact
        }

    @torch.inference_mode()
    def run(self, pixels: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Add some pictures to the sums.

        Args:
            pixels: (N, C, H, W) uint8, a few.

        Returns:
            Logits of the float and of the integer network, (N, classes) float32; of other results
            their rows (`quantization.graph.outputs`).
        """
        with threadpool_limits(limits=1, user_api="blas"):
            return self._run(pixels)

    def _run(self, pixels: UInt8Array) -> tuple[FloatArray, FloatArray]:
        values: dict[str, _Values] = {}
        wanted = list(self.quantized.outputs.values())
        for node in self.quantized:
            inputs = [values[name] for name in node.inputs]
            if node.op is OpKind.INPUT:
                codes = pixel_codes(node, pixels)
                values[node.name] = _Values(torch.from_numpy(pixels) / 255, codes, codes)
            else:
                values[node.name] = self._node(node, inputs, len(pixels))
            for name in node.inputs:
                if self._last_use[name] == node.name and name not in wanted:
                    values.pop(name, None)
        exact = joined([values[name].exact for name in wanted], len(pixels))
        return exact.numpy(), join((values[name].reached.real for name in wanted), len(pixels))

    def _node(self, node: Node, inputs: "list[_Values]", batch: int) -> "_Values":
        """Compute one node in both networks, and sum up."""
        exact = self._float(node, [v.exact for v in inputs], batch)
        reached = self._reference.execute(node, [v.reached for v in inputs], batch)
        moves = node.op in LAYOUT_OPS or node.op in (OpKind.SCALE, OpKind.CONCAT, OpKind.OFFSET)
        alone = self._reference.execute(node, [v.held for v in inputs], batch)
        if moves and node.out is None:
            return _Values(exact, reached, alone)
        given = [torch.from_numpy(v.held.real) for v in inputs]
        own = alone.real - self._float(node, given, batch).numpy()
        self._add(node, exact.numpy(), reached.real, own)
        return _Values(exact, reached, _held(node, exact, reached))

    def _float(self, node: Node, inputs: list[torch.Tensor], batch: int) -> torch.Tensor:
        return compute_node(self.exact.nodes[node.name], inputs, self._params[node.name], batch)

    def _add(self, node: Node, exact: FloatArray, reached: FloatArray, own: FloatArray) -> None:
        sums = self.sums.setdefault(node.name, Sums())
        sums.count += exact.size
        sums.low = min(sums.low, float(exact.min()))
        sums.high = max(sums.high, float(exact.max()))
        sums.exact += _dot(exact, exact)
        sums.reached += _dot(reached, reached)
        sums.product += _dot(exact, reached)
        error = reached - exact
        sums.error += _dot(error, error)
        sums.own += _dot(own, own)
        reach = reach_of(node)
        if reach is not None and node.out is not None:
            beyond = exact - np.clip(exact, *reach)
            beyond = beyond[np.abs(beyond) > float(node.out.scale) / 2]
            sums.clipped += beyond.size
            sums.lost += _dot(beyond, beyond)


@dataclass
class _Values:
    """One node's result: of the float network, of the integers, and the float one as codes."""

    exact: torch.Tensor
    reached: IntTensor
    held: IntTensor


def _held(node: Node, exact: torch.Tensor, reached: IntTensor) -> IntTensor:
    """Return float values as codes of the same scales as the integer network's."""
    kept = simulate_node(node, exact) if node.out is not None else exact
    codes = np.rint(kept.numpy().astype(np.float64) / np.where(reached.scale, reached.scale, 1.0))
    return IntTensor(codes.astype(np.int64) + reached.zero_point, reached.scale, reached.zero_point)


def _dot(a: FloatArray, b: FloatArray) -> float:
    return float(np.vdot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))
