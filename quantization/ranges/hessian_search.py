r"""PTQ4ViT's search (arXiv:2111.12293): both scales of a product, by its output's weighted error.

For a product O = A B (a layer's input and weight, or two activations), Algorithm 1 chooses the
scales in turn, each from candidates between alpha and beta times what min-max would give,

    argmin over Delta_A, Delta_B of  E[ (O_q - O)^T diag((dL/dO)**2) (O_q - O) ]       (Eq. 7)

All candidates of one scale are evaluated in one batch on sampled rows (the published code's
"batched fast" form, `PTQSLBatchingQuantLinear`).

Deviations: the gradients are the importance of `quantization.ranges.importance` (labels drawn from
    the
model's own predictions); weights have one scale for each output channel and not for the layer, so
that the search over a weight's scale is the same one for all channels at once; the zero point of an
affine input is searched first, by `search_range`, and kept in proportion; post-Softmax weights have
twin ranges of 8-bit weights (`numerics.twin_codes`), GELU has those whose codes fit a byte
(`numerics.twin`, with what that costs), and at 8 bits both have one range, which is all 256 codes.

What twin attention weights are worth, DeiT-Tiny, 68 pictures not calibrated on, all else at 8 bits,
mean cosine of the logits with the float ones: one range of 8 bits 0.9954; 6 bits 0.9952, log2 codes
0.9920; 4 bits 0.9891, log2 codes 0.9920.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QuantParams
from vitq.numerics.twin import Twin, coarse_range, fine_range, threshold
from vitq.numerics.twin_codes import TwinCodes
from vitq.quantization.run.fake_quantize import fake_quantize, twin_exponents

Candidate = TypeVar("Candidate", bound=Callable[[torch.Tensor], torch.Tensor])

ALPHA, BETA = 0.3, 1.2
CANDIDATES = 24
ROUNDS = 3
ROWS = 256


@dataclass(frozen=True)
class Quantizer:
    """A candidate for an activation.

    Attributes:
        qparams: of the one range, or of the fine one.
        twin: the ranges, None where there is one.
    """

    qparams: QuantParams
    twin: Twin | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize and dequantize."""
        if self.twin is None:
            return fake_quantize(x, self.qparams)
        rest = x - float(threshold(self.twin, self.qparams))
        above = fake_quantize(rest, coarse_range(self.twin, self.qparams))
        return fake_quantize(x, fine_range(self.twin, self.qparams)) + above


@dataclass(frozen=True)
class AttentionQuantizer:
    """A candidate for attention weights, which it normalizes.

    Attributes:
        twin: the ranges.
    """

    twin: TwinCodes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Round exponentials (..., N) to weights, and divide them by their sum."""
        weights = twin_exponents(x, self.twin)
        return weights / weights.sum(-1, keepdim=True)


def scaled(qparams: QuantParams, factor: float) -> QuantParams:
    """Return the same codes with another step."""
    scale = float(qparams.scale) * factor
    return QuantParams.per_tensor(scale, int(qparams.zero_point), qparams.qmin, qparams.qmax)


def factors() -> FloatArray:
    """Candidates relative to min-max: alpha to beta (Algorithm 1)."""
    return np.linspace(ALPHA, BETA, CANDIDATES)


def search_input(
    x: torch.Tensor,
    target: torch.Tensor,
    other: torch.Tensor,
    gradients: torch.Tensor,
    candidates: Sequence[Candidate],
) -> Candidate:
    """Return the best quantizer of a product's first operand, the second one as it is.

    Args:
        x: (..., R, K) values.
        target: (..., R, O) float results.
        other: (..., K, O) the other operand, quantized.
        gradients: broadcastable to `target`, squared.
        candidates: to choose from.

    Returns:
        The one with the smallest weighted error.
    """
    errors = [
        float(((candidate(x) @ other - target).square() * gradients).sum())
        for candidate in candidates
    ]
    return candidates[int(np.argmin(errors))]


def search_weight_scales(
    x: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    gradients: torch.Tensor,
    scales: torch.Tensor,
    limits: tuple[int, int],
) -> torch.Tensor:
    """Return the best scale of each output channel, the input as it is.

    A channel's output depends on its own row only, so that the sum over channels falls apart and
    all candidates of all channels are one product.

    Args:
        x: (R, K) quantized input.
        weight: (O, K).
        target: (R, O) float results, without bias.
        gradients: (R, O) or broadcastable, squared.
        scales: (candidates, O).
        limits: smallest and largest code.

    Returns:
        (O,) scales.
    """
    steps = scales[:, :, None]
    codes = torch.clamp(torch.round(weight / steps), *limits)
    outputs = torch.einsum("rk,sok->sro", x, codes * steps)
    errors = ((outputs - target).square() * gradients).sum(1)
    return scales.gather(0, errors.argmin(0, keepdim=True))[0]
