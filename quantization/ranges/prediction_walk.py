r"""PD-Quant's calibration (arXiv:2212.07048): scales chosen by what they do to the prediction.

For each quantizer the scale is chosen from candidates by the difference of the network's
predictions with and without it (Eq. 4 and 5),

    argmin over Delta of  KL( softmax(f(x)) || softmax(f_q(x; Delta)) ) + lambda || x_q - x ||**2

everything behind the quantizer in float, everything before it as it is quantized already. The
second term keeps a scale from fitting the few calibration pictures.

Activation distribution correction (Eq. 7): what reaches a quantizer is corrected towards the
statistics of the float model before it is used for the search,

    argmin over x' of  lambda_c (|| mu(x') - mu ||**2 + || sigma(x') - sigma ||**2)
                       + || x' - x ||**2

Results that rank no classes have another loss than KL (`quantization.ranges.losses`).

Deviations: the paper takes mu and sigma from BatchNorm, which a ViT has none of: here they are
those of the float activations over the calibration pictures, for each channel. The corrected
activation is the step of size ``lambda_c / (1 + lambda_c)`` towards the activation that has exactly
mu and sigma, instead of gradient descent. Weights are rounded with searched clipping (the paper
learns the rounding, which is a method of its own); blocks are single layers.
"""

from typing import Any

import numpy as np
import torch

from vitq.quantization.graph.graph import Node, OpKind
from vitq.quantization.plan.placement import Role
from vitq.quantization.ranges.hessian_search import scaled
from vitq.quantization.ranges.losses import difference, results_of
from vitq.quantization.ranges.sequential import Walk
from vitq.quantization.run.fake_quantize import compute_node, simulate_node

FACTORS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
"""Candidates, relative to the smallest squared error's scale."""
REGULARIZATION = 0.1
CORRECTION = 1.0
"""lambda_c: half of the way to the float statistics."""
_SEARCHED = (Role.ACTIVATION, Role.POST_NORM)


class PredictionWalk(Walk):
    """A sequential walk that searches by prediction difference."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.extends = False
        self._order = list(self.graph)
        with torch.inference_mode():
            self._float = self._run_float()
        self._prediction = results_of(self.graph, self._float)

    def _run_float(self) -> dict[str, torch.Tensor]:
        """Every node's float result that a quantizer is placed on, and the logits."""
        values: dict[str, torch.Tensor] = {}
        keep: dict[str, torch.Tensor] = {}
        results = set(self.graph.outputs.values())
        last_use = {name: node.name for node in self._order for name in node.inputs}
        for node in self._order:
            values[node.name] = self._value(node, values)
            if self.placement.roles.get(node.name) in _SEARCHED or node.name in results:
                keep[node.name] = values[node.name]
            for name in node.inputs:
                if last_use[name] == node.name:
                    values.pop(name, None)
        return keep

    def _value(self, node: Node, values: dict[str, torch.Tensor]) -> torch.Tensor:
        if node.op is OpKind.INPUT:
            return self.pixels.to(torch.float32) / 255
        params = {r: torch.from_numpy(np.array(self.graph.real(node, r))) for r in node.params}
        return compute_node(node, [values[n] for n in node.inputs], params, len(self.pixels))

    def _activation(self, node: Node, value: torch.Tensor) -> None:
        """Refine the scale of the smallest squared error by the prediction."""
        super()._activation(node, value)
        assert node.out is not None
        start = node.out
        corrected = correct_distribution(value, self._float[node.name])
        losses = []
        for factor in FACTORS:
            node.out = scaled(start, factor)
            rounded = simulate_node(node, corrected)
            error = float((rounded - corrected).square().mean() / corrected.square().mean())
            losses.append(self._difference(node, rounded) + REGULARIZATION * error)
        node.out = scaled(start, FACTORS[int(np.argmin(losses))])

    def _difference(self, node: Node, value: torch.Tensor) -> float:
        """Loss of the prediction with a node's result replaced, the rest in float."""
        values = {**self.values, node.name: value}
        for later in self._order[self._order.index(node) + 1 :]:
            values[later.name] = self._value(later, values)
        return difference(self._prediction, results_of(self.graph, values))


def correct_distribution(value: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Move activations towards the channels' float statistics.

    Args:
        value: (..., C) what reaches a quantizer.
        reference: the same shape, of the float model.

    Returns:
        ``x + lambda_c / (1 + lambda_c) ((x - mu(x)) sigma / sigma(x) + mu - x)``.
    """
    axes = tuple(range(value.ndim - 1))
    mean, target = (v.mean(axes, keepdim=True) for v in (value, reference))
    spread, wanted = (v.std(axes, keepdim=True) for v in (value, reference))
    ratio = torch.where(spread > 0, wanted / spread.clamp_min(1e-12), torch.ones_like(spread))
    aligned = (value - mean) * ratio + target
    return value + CORRECTION / (1 + CORRECTION) * (aligned - value)
