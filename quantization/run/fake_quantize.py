"""Run a `Graph` in PyTorch: in float, or with every quantizer simulated (fake quantization).

In float it reproduces the traced model; with ``fake_quantize=True`` each node's result is quantized
and dequantized with its `Node.out`, and the quantized weights are used, with float arithmetic and
float nonlinear operators in between. That is what an ONNX QDQ file means, so it is the exporter's
counterpart.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.numerics.log_codes import code_table, log_code_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import CODE_MAX
from vitq.numerics.twin import coarse_range, fine_range, threshold
from vitq.numerics.twin_codes import ONE_RANGE, TwinCodes, twin_weights
from vitq.quantization.graph.functions import apply
from vitq.quantization.graph.geometry import geometry_of
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.plan.attention_codes import LogCodes, log_codes_of, twin_codes_of
from vitq.quantization.plan.twin_ranges import twin_of

Observer = Callable[[Node, torch.Tensor], None]
Quantizer = Callable[[Node, torch.Tensor], torch.Tensor]


def fake_quantize(x: torch.Tensor, qparams: QuantParams) -> torch.Tensor:
    """Quantize and dequantize: round half to even, clamp, float32.

    Args:
        x: any shape.
        qparams: per tensor or per axis.

    Returns:
        The nearest representable values, the shape of `x`.
    """
    scale, zero_point = (
        torch.from_numpy(np.asarray(v)).to(x.device) for v in qparams.along(x.ndim)
    )
    codes = torch.clamp(torch.round(x / scale) + zero_point, qparams.qmin, qparams.qmax)
    return (codes - zero_point) * scale


def quantize_exponents(x: torch.Tensor, log: LogCodes) -> torch.Tensor:
    """Round exponentials to their grid.

    Args:
        x: any shape, 0 to 1, relative to the row's maximum.
        log: the grid.

    Returns:
        The weights of the nearest codes, ``2**(-k / steps)`` in steps of 1 / 255, the shape of `x`.
    """
    codes = torch.from_numpy(code_table(log_code_params(1.0, *log)))
    table = codes.to(x.device, x.dtype) / CODE_MAX
    k = torch.floor(-log.steps * torch.log2(x) + 0.5)
    return table[torch.clamp(k, 0, len(table) - 1).to(torch.int64)]


def twin_exponents(x: torch.Tensor, twin: TwinCodes) -> torch.Tensor:
    """Round exponentials to their two ranges.

    Args:
        x: any shape, 0 to 1, relative to the row's maximum.
        twin: the ranges.

    Returns:
        The weights in steps of 1 / 255, the shape of `x`.
    """
    table = torch.from_numpy(twin_weights(np.arange(CODE_MAX + 1), twin)).to(x.device, x.dtype)
    codes = torch.clamp(torch.round(x * CODE_MAX), 0, CODE_MAX)
    return table[codes.to(torch.int64)] / CODE_MAX


def simulate_node(node: Node, value: torch.Tensor) -> torch.Tensor:
    """Quantize a node's result as its quantizers do."""
    assert node.out is not None
    twin = twin_of(node)
    if twin is not None:
        above = value - float(threshold(twin, node.out))
        coarse = fake_quantize(above, coarse_range(twin, node.out))
        return fake_quantize(value, fine_range(twin, node.out)) + coarse
    if node.op is OpKind.EXP:
        value = _on_grid(node, value)
    return fake_quantize(value, node.out)


def _on_grid(node: Node, value: torch.Tensor) -> torch.Tensor:
    """Exponentials as their codes leave them."""
    log, twin = log_codes_of(node), twin_codes_of(node)
    if log is not None:
        return quantize_exponents(value, log)
    return value if twin == ONE_RANGE else twin_exponents(value, twin)


class GraphModule(torch.nn.Module):
    """A `Graph` as a PyTorch module.

    Args:
        graph: float or quantized.
        simulate: quantize the nodes that carry parameters.
        observer: called with each node and its result, before its quantizer.
        quantizer: what simulates one node's, `simulate_node` or a differentiable form of it.
        dtype: of the arithmetic. Codes hardly depend on it; where they do, the quantized network
            amplifies rounding, and float64 shows by how much.
    """

    def __init__(
        self,
        graph: Graph,
        simulate: bool = False,
        observer: Observer | None = None,
        quantizer: Quantizer = simulate_node,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.simulate = simulate
        self.observer = observer
        self.quantizer = quantizer
        self.dtype = dtype
        self._params = {
            (node.name, role): torch.from_numpy(np.array(graph.real(node, role))).to(dtype)
            for node in graph
            for role in node.params
        }
        self._wanted = frozenset(graph.outputs.values())
        self._last_use = {name: node.name for node in graph for name in node.inputs}

    def _apply(self, fn: Any, recurse: bool = True) -> "GraphModule":
        """Move the parameters, too, when the module is moved to a device."""
        super()._apply(fn, recurse)
        self._params = {key: fn(value) for key, value in self._params.items()}
        return self

    @torch.inference_mode()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the results; `differentiable` without gradients."""
        return self.differentiable(x)

    def differentiable(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the results so that gradients reach `x`.

        Args:
            x: what the graph's input means: (N, C, H, W) float32, or uint8 pixels, which are
                divided by 255.

        Returns:
            (N, classes) float32; of other results their row (`quantization.graph.outputs`).
        """
        if x.dtype == torch.uint8:
            x = x.to(self.dtype) / 255
        values: dict[str, torch.Tensor] = {}
        self.advance(values, self.graph, x)
        return joined([values[name] for name in self.graph.outputs.values()], len(x))

    def advance(
        self, values: dict[str, torch.Tensor], nodes: Iterable[Node], x: torch.Tensor
    ) -> None:
        """Compute some nodes that follow each other.

        Args:
            values: results of the nodes before that are still needed; edited in place to those
                after.
            nodes: in execution order.
            x: the graph's input.
        """
        for node in nodes:
            value = x if node.op is OpKind.INPUT else self._compute(node, values, x.shape[0])
            if self.observer is not None:
                self.observer(node, value)
            if self.simulate and node.out is not None:
                value = self.quantizer(node, value)
            values[node.name] = value
            for name in node.inputs:
                if self._last_use[name] == node.name and name not in self._wanted:
                    values.pop(name, None)

    def _compute(self, node: Node, values: dict[str, torch.Tensor], batch: int) -> torch.Tensor:
        inputs = [values[name] for name in node.inputs]
        params = {role: self._params[node.name, role] for role in node.params}
        return compute_node(node, inputs, params, batch)


def joined(results: list[torch.Tensor], pictures: int) -> torch.Tensor:
    """`quantization.graph.outputs.join` in PyTorch."""
    if len(results) == 1:
        return results[0]
    return torch.cat([result.reshape(pictures, -1) for result in results], 1)


def compute_node(
    node: Node, inputs: list[torch.Tensor], params: dict[str, torch.Tensor], batch: int
) -> torch.Tensor:
    """One operator in float, without its quantizer.

    Args:
        node: what to compute; not the graph's input.
        inputs: its operands.
        params: role -> real values.
        batch: how many pictures.

    Returns:
        The result, float32.
    """
    if node.op in _LAYOUT:
        return _compute_layout(node, inputs, batch)
    return _KERNELS[node.op](node, inputs, params)


_LAYOUT = {
    OpKind.RESHAPE,
    OpKind.PERMUTE,
    OpKind.SELECT,
    OpKind.SLICE,
    OpKind.CONCAT,
    OpKind.EXPAND,
    OpKind.TAKE,
    OpKind.PAD,
}


def _compute_layout(node: Node, inputs: list[torch.Tensor], batch: int) -> torch.Tensor:
    x, attrs = inputs[0], node.attrs
    if node.op is OpKind.RESHAPE:
        return x.reshape(node.shape_at(batch))
    if node.op is OpKind.PERMUTE:
        return x.permute(attrs["axes"])
    if node.op is OpKind.SELECT:
        return x.select(attrs["axis"], attrs["index"])
    if node.op is OpKind.SLICE:
        return x.narrow(attrs["axis"], attrs["start"], attrs["stop"] - attrs["start"])
    if node.op is OpKind.EXPAND:
        return x.expand(node.shape_at(batch))
    if node.op is OpKind.TAKE:
        return x.index_select(attrs["axis"], torch.tensor(attrs["indices"], device=x.device))
    if node.op is OpKind.PAD:
        return F.pad(x, [side for pair in reversed(attrs["pads"]) for side in pair])
    return torch.cat(inputs, attrs["axis"])


Kernel = Callable[[Node, list[torch.Tensor], dict[str, torch.Tensor]], torch.Tensor]


def _exp(node: Node, inputs: list[torch.Tensor], _: dict[str, torch.Tensor]) -> torch.Tensor:
    x = inputs[0]
    return torch.exp(x - x.amax(-1, keepdim=True))


def _depthwise(
    node: Node, inputs: list[torch.Tensor], params: dict[str, torch.Tensor]
) -> torch.Tensor:
    place, weight = geometry_of(node), params["weight"]
    (top, left), (bottom, right) = place.before, place.after
    padded = F.pad(inputs[0].permute(0, 3, 1, 2), (left, right, top, bottom))
    found = F.conv2d(
        padded, weight[:, None], params["bias"], place.stride, 0, place.dilation, len(weight)
    )
    return found.permute(0, 2, 3, 1)


_KERNELS: dict[OpKind, Kernel] = {
    OpKind.CONSTANT: lambda n, i, p: p["value"],
    OpKind.CONV2D: lambda n, i, p: F.conv2d(i[0], p["weight"], p["bias"], p["weight"].shape[2:]),
    OpKind.DEPTHWISE: _depthwise,
    OpKind.LINEAR: lambda n, i, p: F.linear(i[0], p["weight"], p["bias"]),
    OpKind.MATMUL: lambda n, i, p: i[0] @ i[1],
    OpKind.ADD: lambda n, i, p: i[0] + i[1],
    OpKind.SCALE: lambda n, i, p: i[0] * n.attrs["factor"],
    OpKind.CHANNEL_SCALE: lambda n, i, p: i[0] * p["value"],
    OpKind.LAYER_NORM: lambda n, i, p: F.layer_norm(
        i[0], i[0].shape[-1:], p["gamma"], p["beta"], n.attrs["eps"]
    ),
    OpKind.SOFTMAX: lambda n, i, p: torch.softmax(i[0], -1),
    OpKind.EXP: _exp,
    OpKind.NORMALIZED_MATMUL: lambda n, i, p: (i[0] @ i[1]) / i[0].sum(-1, keepdim=True),
    OpKind.GELU: lambda n, i, p: F.gelu(i[0], approximate=n.attrs["approximate"]),
    OpKind.MEAN: lambda n, i, p: i[0].mean(n.attrs["axis"]),
    OpKind.REQUANTIZE: lambda n, i, p: i[0],
    OpKind.MAX: lambda n, i, p: i[0].amax(n.attrs["axis"]),
    OpKind.ARGMAX: lambda n, i, p: i[0].argmax(n.attrs["axis"]).to(i[0].dtype),
    OpKind.MULTIPLY: lambda n, i, p: i[0] * i[1],
    OpKind.POINTWISE: lambda n, i, p: apply(n, i[0]),
    OpKind.RMS_NORM: lambda n, i, p: (
        i[0] * torch.rsqrt(i[0].square().mean(-1, keepdim=True) + n.attrs["eps"]) * p["gamma"]
    ),
    OpKind.OFFSET: lambda n, i, p: i[0] + p["value"],
}
