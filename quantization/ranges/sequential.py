"""Quantize layer by layer, each on what the quantized layers before it really produce.

One walk through the graph in execution order over all calibration pictures. At every node that
carries a quantizer its parameters are searched on the values at hand, at every layer its weights
are rounded for the inputs at hand, and the walk goes on with the quantized result. An error that
one layer makes is thus seen, and partly made up for, by those behind it (Hessian-based methods do
so since OBQ, arXiv:2208.11580).

Beside it goes the float network, on the same pictures and with the same rewrites: a layer's bias is
corrected towards the mean of what the float layer produces.

What it keeps: one value for each live node, for all pictures, and the float one if biases are
corrected; `quantization.ranges.memory` says how much.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import dequantize
from vitq.quantization.graph.graph import LAYER_OPS, Graph, Node, OpKind
from vitq.quantization.plan.methods import AttentionForm, GeluRanges, Method, WeightRounding
from vitq.quantization.plan.nonlinear import family_of
from vitq.quantization.plan.placement import Placement, Role
from vitq.quantization.plan.widths import LayerBits
from vitq.quantization.ranges.attention_search import choose_codes
from vitq.quantization.ranges.center_keys import center_keys
from vitq.quantization.ranges.equalize import equalize_value, value_paths
from vitq.quantization.ranges.evidence import Ranges, widen_quiet
from vitq.quantization.ranges.gelu_reach import gelu_output_range
from vitq.quantization.ranges.importance import Importance
from vitq.quantization.ranges.layers import (
    Inputs,
    Means,
    activation_scheme,
    input_rows,
    quantize_constant,
    round_layer,
)
from vitq.quantization.ranges.migration import migrate
from vitq.quantization.ranges.observers import channel_extent
from vitq.quantization.ranges.reparameterize import reparameterize_norm
from vitq.quantization.ranges.samples import Sampler, extend_selection, extendable
from vitq.quantization.ranges.search import FULL, search_channels, search_range, search_twin
from vitq.quantization.ranges.steps import settle_searched_step
from vitq.quantization.ranges.weight_rounding import round_weight
from vitq.quantization.run.fake_quantize import compute_node, simulate_node

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


class Walk:
    """One walk over the graph.

    Args:
        graph: float, edited in place.
        placement: where the quantizers are; those of residual width have their parameters.
        pixels: (N, C, H, W) uint8 calibration pictures.
        widths: of each product, by node name.
        method: how parameters are found.
        importance: node name -> importance; empty for methods that treat all values alike.
    """

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        pixels: torch.Tensor,
        widths: dict[str, LayerBits],
        method: Method,
        importance: Importance,
    ) -> None:
        self.graph = graph
        self.placement = placement
        self.pixels = pixels
        self.widths = widths
        self.method = method
        self.sampler = Sampler(len(pixels), importance)
        self.values: dict[str, torch.Tensor] = {}
        self.exact: dict[str, torch.Tensor] = {}
        self.extends = all(node.op is not OpKind.MEAN for node in graph)

    @torch.inference_mode()
    def run(self, progress: Progress) -> None:
        """Give every quantizer its parameters and round every weight."""
        last_use = {name: node.name for node in self.graph for name in node.inputs}
        nodes = list(self.graph)
        for node in progress(nodes, "quantize", len(nodes)):
            value = self._visit(node)
            if self.method.sequential and node.out is not None:
                value = simulate_node(node, value)
            if self.method.correct_bias and node.name not in self.exact:
                self.exact[node.name] = self._compute(node, self.exact)
            self.values[node.name] = value
            for name in node.inputs:
                if last_use[name] == node.name:
                    self.values.pop(name, None)
                    self.exact.pop(name, None)

    def _visit(self, node: Node) -> torch.Tensor:
        """Settle a node's parameters and compute its result before its quantizer."""
        if node.op is OpKind.CONSTANT and node.out is not None:
            quantize_constant(self.graph, node)
        layer = node.op in LAYER_OPS
        value = self._layer(node) if layer else self._compute(node, self.values)
        role = self.placement.roles.get(node.name)
        if node.op is OpKind.EXP and self.method.attention is AttentionForm.ADAPTIVE:
            choose_codes(self.graph, node, value, self.widths, self.sampler)
        elif role is Role.POST_NORM and node.out is None:
            return self._layernorm(node, value)
        elif role is Role.ACTIVATION and node.out is None:
            self._activation(node, value)
            settle_searched_step(self.graph, self.placement, node)
        return value

    def _compute(self, node: Node, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute a node's result from those before it, by the parameters that it has now."""
        if node.op is OpKind.INPUT:
            return self.pixels.to(torch.float32) / 255
        inputs = [values[name] for name in node.inputs]
        if node.op is OpKind.SELECT and self.extends and extendable(self.graph, node):
            return extend_selection(node, inputs[0])
        params = {r: torch.from_numpy(np.array(self.graph.real(node, r))) for r in node.params}
        return compute_node(node, inputs, params, len(self.pixels))

    def _activation(self, node: Node, value: torch.Tensor) -> None:
        """Search the parameters of what a product reads."""
        bits = self.placement.bits[node.name]
        values = self.sampler.values(node, value)
        ranges = self.method.gelu if family_of(node).has_twin_gelu else GeluRanges.ONE
        if node.op is OpKind.GELU and ranges is not GeluRanges.ONE and bits < 8:
            found = search_twin(values, bits, twin=ranges is GeluRanges.TWIN)
            node.out = found.qparams
            node.attrs.update(twin_shift=found.twin.shift, twin_split=found.twin.split)
            return
        seen = value if bits >= FULL else torch.from_numpy(values)
        extent = gelu_output_range(node, float(seen.min()), float(seen.max()))
        node.out = search_range(values, bits, activation_scheme(self.graph, node), extent)

    def _layernorm(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        """Channel-wise ranges, moved into the weights around (RepQ-ViT)."""
        bits = self.placement.bits[node.name]
        if self.method.reparameterize:
            rows = self.sampler.rows(node, value)
            own = value.reshape(-1, value.shape[-1])[: self._own_rows(node)]
            seen = Ranges(*channel_extent(own.numpy()))
            found = Ranges(*search_channels(rows, *seen, bits))
            extent = widen_quiet(self.graph, node, seen, found)
            if self.method.migrate:
                qparams = migrate(self.graph, node, rows, extent, bits, self._rounded)
            else:
                qparams = reparameterize_norm(self.graph, node, *extent, bits)
            if qparams is not None:
                node.out = qparams
                return self._compute(node, self.values)
        self._activation(node, value)
        return value

    def _rounded(self, linear: Node, weight: FloatArray, rows: FloatArray) -> FloatArray:
        """Round a layer's weight for a trial, with the scales of plain clipping."""
        bits = self.widths[linear.name].weight_bits
        floor, hessian = np.zeros(len(weight)), torch.zeros(0)
        codes, qparams = round_weight(weight, bits, WeightRounding.CLIPPED, hessian, floor)
        if self.method.rounding is WeightRounding.FEEDBACK:
            hessian = torch.from_numpy(np.cov(rows.T, dtype=np.float64))
            rounding, damping = self.method.rounding, self.method.damping
            scales = qparams.scale
            codes, qparams = round_weight(weight, bits, rounding, hessian, floor, scales, damping)
        return dequantize(codes, qparams)

    def _layer(self, node: Node) -> torch.Tensor:
        """Round a layer's weights for the inputs at hand, and compute its result."""
        source, scales = self.values[node.inputs[0]], None
        if node.op is OpKind.DEPTHWISE:
            return self._depthwise(node)
        rows = input_rows(self.graph, node, source)
        if node.op is OpKind.CONV2D:
            weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        else:
            weights = self.sampler.row_weights(node, source)  # as many rows go in as come out
            if self.method.equalize or self.method.center:
                self._equalize(node, self._compute(node, self.values), weights)
            scales = self._layer_scales(node, rows, weights)
        bits = self.widths[node.name].weight_bits
        means = self._means(node, rows, weights) if self.method.correct_bias else None
        floating = None if self.method.sequential else self._compute(node, self.values)
        round_layer(self.graph, node, bits, self.method, Inputs(rows, weights, means), scales)
        return self._compute(node, self.values) if floating is None else floating

    def _depthwise(self, node: Node) -> torch.Tensor:
        """Round each channel's few weights without regard to what they read."""
        floating = None if self.method.sequential else self._compute(node, self.values)
        round_layer(self.graph, node, self.widths[node.name].weight_bits, self.method)
        return self._compute(node, self.values) if floating is None else floating

    def _means(self, node: Node, rows: torch.Tensor, weights: torch.Tensor) -> Means:
        """Compute a layer in the float network, while its weight is float, and take the means.

        Rows of other tokens (`extend_selection`) say nothing of the mean of the selected one.
        """
        exact = self.exact[node.name] = self._compute(node, self.exact)
        produced = (exact.flatten(2).mT if node.op is OpKind.CONV2D else exact).flatten(0, -2)
        own = len(rows) if node.op is OpKind.CONV2D else self._own_rows(node)
        share = weights[:own] / weights[:own].sum()
        read, wanted = (share @ x[:own].to(torch.float64) for x in (rows, produced))
        return Means(read.numpy(), wanted.numpy())

    def _own_rows(self, node: Node) -> int:
        """How many rows (last axis) of a node's value are its own, not those of other tokens."""
        return len(self.pixels) * int(np.prod(node.shape[:-1]))

    def _layer_scales(
        self, node: Node, rows: torch.Tensor, weights: torch.Tensor
    ) -> FloatArray | None:
        """(O,) scales of a layer's weight, or None where its rounding finds them.

        Args:
            node: a linear layer.
            rows: (R, K) what it reads.
            weights: (R,) of the rows, sum 1.
        """
        return None

    def _equalize(self, node: Node, result: torch.Tensor, weights: torch.Tensor) -> None:
        """Shift and scale V's channels by their mean and root mean square, shift those of keys."""
        rows = result.reshape(-1, result.shape[-1]).to(torch.float64)
        mean = weights @ rows
        if self.method.center:
            center_keys(self.graph, node, mean.numpy())
        for path in value_paths(self.graph, node) if self.method.equalize else ():
            size = (weights @ (rows - mean).square()).sqrt()
            equalize_value(self.graph, node, path, mean.numpy(), size.numpy())
