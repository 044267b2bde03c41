r"""PTQ4ViT's calibration: the scales of a product's two operands, searched in turn.

See `quantization.ranges.hessian_search` for the equations. The walk is in float: what a product
reads is settled when the walk comes to the product, as both operands are there.
"""

from collections.abc import Sequence

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.twin_codes import ONE_RANGE, twin_choices
from vitq.quantization.graph.graph import LAYOUT_OPS, Node, OpKind
from vitq.quantization.plan.attention_codes import set_twin_codes, twin_codes_of
from vitq.quantization.plan.nonlinear import family_of
from vitq.quantization.plan.placement import Role
from vitq.quantization.ranges.gelu_reach import gelu_output_range
from vitq.quantization.ranges.hessian_search import (
    ROUNDS,
    ROWS,
    AttentionQuantizer,
    Quantizer,
    factors,
    scaled,
    search_input,
    search_weight_scales,
)
from vitq.quantization.ranges.importance import spread
from vitq.quantization.ranges.layers import activation_scheme, quantized_source
from vitq.quantization.ranges.observers import activation_qparams, weight_qparams
from vitq.quantization.ranges.search import PTQ4VIT_SHIFTS, twin_params
from vitq.quantization.ranges.sequential import Walk
from vitq.quantization.ranges.weight_rounding import weight_limits

PICTURES_SHARE = 4
"""A product of two activations is searched on a fourth of the pictures."""


class HessianWalk(Walk):
    """A walk in float that searches both operands of each product by its output's error."""

    def _activation(self, node: Node, value: torch.Tensor) -> None:
        """Start from min-max; the product that reads it searches on."""
        bits = self.placement.bits[node.name]
        low, high = gelu_output_range(node, float(value.min()), float(value.max()))
        node.out = activation_qparams(low, high, bits, activation_scheme(self.graph, node))

    def _visit(self, node: Node) -> torch.Tensor:
        if node.op in (OpKind.MATMUL, OpKind.NORMALIZED_MATMUL):
            self._product(node)
        return super()._visit(node)

    def _candidates(self, source: Node, high: float) -> Sequence[Quantizer]:
        """Quantizers to try for what a product reads.

        Args:
            source: the node that carries the quantizer, with its min-max parameters.
            high: largest value.
        """
        assert source.out is not None
        bits = self.placement.bits[source.name]
        if source.op is OpKind.GELU and family_of(source).has_twin_gelu and bits < 8:
            half = 2 ** (bits - 1)
            found = []
            for factor in factors():
                for shift in PTQ4VIT_SHIFTS:
                    fine = factor * high / (half - 1) / 2**shift
                    twin = twin_params(fine, half, half + 1, shift, bits)
                    found += [] if twin is None else [Quantizer(*twin)]
            return found
        return [Quantizer(scaled(source.out, factor)) for factor in factors()]

    def _settle(self, source: Node, found: Quantizer) -> None:
        source.out = found.qparams
        if found.twin is not None:
            source.attrs.update(twin_shift=found.twin.shift, twin_split=found.twin.split)

    def _searched(self, node: Node, index: int) -> Node | None:
        """Return what carries the quantizer of an operand, if it is to be searched here.

        A value that several products read is searched for the first of them.
        """
        source, _ = quantized_source(self.graph, node, index)
        if self.placement.roles.get(source.name) not in (Role.ACTIVATION, Role.POST_NORM):
            return None
        return source if self._first_product(source) == node.name else None

    def _first_product(self, source: Node) -> str | None:
        pending = [source]
        found = set()
        while pending:
            for reader in self.graph.consumers(pending.pop().name):
                if reader.op in LAYOUT_OPS or reader.op is OpKind.SCALE:
                    pending.append(reader)
                else:
                    found.add(reader.name)
        return next((node.name for node in self.graph if node.name in found), None)

    def _layer_scales(
        self, node: Node, rows: torch.Tensor, weights: torch.Tensor
    ) -> FloatArray | None:
        """Search a layer's input and weight in turn (Algorithm 1).

        Args:
            node: a linear layer.
            rows: (R, K) what it reads.
            weights: (R,) of the rows.

        Returns:
            (O,) scales of the weight.
        """
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(weights, ROWS, replacement=True, generator=generator)
        x = rows[drawn]
        weight = torch.from_numpy(self.graph.real(node, "weight").copy())
        gradients = self.sampler.channel_weights(node)
        bits = self.widths[node.name].weight_bits
        start = weight_qparams(weight.numpy(), bits).scale
        limits = weight_limits(bits)
        scales = torch.from_numpy(np.outer(factors(), start).astype(np.float32))
        chosen, target = torch.from_numpy(start.copy()), x @ weight.T
        source, _ = quantized_source(self.graph, node)
        searched = self._searched(node, 0)
        quantizer = Quantizer(source.out)  # type: ignore[arg-type]
        candidates = [quantizer] if searched is None else self._candidates(source, float(x.max()))
        for _ in range(ROUNDS):
            step = chosen[:, None]
            codes = torch.clamp(torch.round(weight / step), *limits)
            quantizer = search_input(x, target, (codes * step).T, gradients, candidates)
            chosen = search_weight_scales(quantizer(x), weight, target, gradients, scales, limits)
        if searched is not None:
            self._settle(source, quantizer)
        found: FloatArray = chosen.numpy()
        return found

    def _product(self, node: Node) -> None:
        """Search the operands of a product of two activations in turn."""
        sources = [self._searched(node, index) for index in (0, 1)]
        weights = self._twin_weights(node)
        if node.batch_axis != 0 or not any((*sources, weights)):
            return
        few = max(1, len(self.pixels) // PICTURES_SHARE) * node.shape[0]
        real = [self.values[name][:few] for name in node.inputs]
        exponentials = real[0]
        if node.op is OpKind.NORMALIZED_MATMUL:
            real[0] = exponentials / exponentials.sum(-1, keepdim=True)
        target, rounded = real[0] @ real[1], list(real)
        importance = self.sampler.importance.get(node.name, torch.ones(node.shape))
        gradients = spread(importance, target, node.batch_axis)
        found: dict[int, Quantizer] = {}
        for _ in range(ROUNDS):
            if weights is not None:
                tried = [AttentionQuantizer(t) for t in twin_choices(twin_codes_of(weights).bits)]
                best = search_input(exponentials, target, rounded[1], gradients, tried)
                set_twin_codes(weights, best.twin)
                rounded[0] = best(exponentials)
            for index, source in enumerate(sources):
                if source is None:
                    continue
                factor = quantized_source(self.graph, node, index)[1]
                first = index == 0
                found[index] = search_input(
                    real[index] if first else real[index].mT,
                    target if first else target.mT,
                    rounded[1] if first else rounded[0].mT,
                    gradients if first else gradients.mT,
                    self._scaled_candidates(source, factor),
                )
                rounded[index] = found[index](real[index])
        for index, quantizer in found.items():
            source, factor = quantized_source(self.graph, node, index)
            source.out = scaled(quantizer.qparams, 1 / factor)

    def _twin_weights(self, node: Node) -> Node | None:
        """Return the attention weights that a product reads, if they have two ranges."""
        source = self.graph.operand(node)
        is_twin = source.op is OpKind.EXP and twin_codes_of(source) != ONE_RANGE
        return source if is_twin else None

    def _scaled_candidates(self, source: Node, factor: float) -> list[Quantizer]:
        """Candidates for a value that a constant multiplies on its way."""
        assert source.out is not None
        return [Quantizer(scaled(source.out, factor * f)) for f in factors()]
