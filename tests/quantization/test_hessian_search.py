"""PTQ4ViT's search: each step is the best of its candidates, and its quantizers are the paper's."""

import numpy as np
import pytest
import torch

from tests.quantization.vits import quantized
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.ranges.hessian_search import (
    CANDIDATES,
    Quantizer,
    factors,
    scaled,
    search_input,
    search_weight_scales,
)
from vitq.quantization.ranges.search import twin_params


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 12, generator=generator) for n in (40, 6))
    gradients = torch.rand(6, generator=generator) * torch.tensor([1, 0, 0, 1, 0, 50.0])
    return x, weight, gradients


def test_candidates_are_the_papers() -> None:
    assert len(factors()) == CANDIDATES
    assert factors()[0] < 0.5 < 1 < factors()[-1]


def test_the_input_is_searched_by_the_weighted_error_of_the_output() -> None:
    x, weight, gradients = problem()
    candidates = [Quantizer(QuantParams.per_tensor(s, 0, -8, 7)) for s in (0.1, 0.2, 0.3, 0.5, 0.8)]
    target = x @ weight.T
    found = search_input(x, target, weight.T, gradients, candidates)

    def error(quantizer: Quantizer) -> float:
        scale = np.float32(quantizer.qparams.scale)
        rounded = np.clip(np.rint(x.numpy() / scale), -8, 7) * scale
        difference = rounded @ weight.numpy().T - target.numpy()
        return float((difference**2 * gradients.numpy()).sum())

    assert found is min(candidates, key=error)


def test_all_channels_are_searched_in_one_batch() -> None:
    x, weight, gradients = problem()
    largest = weight.abs().amax(1) / 7
    scales = torch.stack([largest * f for f in (0.4, 0.6, 0.8, 1.0)])
    target = x @ weight.T
    found = search_weight_scales(x, weight, target, torch.ones(6), scales, (-8, 7))
    for row, chosen, tried in zip(weight, found, scales.T, strict=True):
        errors = []
        for scale in tried:
            codes = torch.clamp(torch.round(row / scale), -8, 7)
            errors.append(float((x @ (codes * scale) - x @ row).square().sum()))
        assert float(chosen) == float(tried[int(np.argmin(errors))])
    # a channel's weight does not change what is best for it
    same = search_weight_scales(x, weight, target, gradients + 1e-3, scales, (-8, 7))
    assert torch.equal(found, same)


def test_a_twin_quantizer_is_the_papers() -> None:
    found = twin_params(0.02, 8, 9, 3, 4)
    assert found is not None
    x = torch.linspace(-0.2, 2, 400)
    fine, coarse = np.float32(0.02), np.float32(0.16)
    low = np.clip(np.rint(x.numpy() / fine), -8, 0) * fine
    high = np.clip(np.rint(x.numpy() / coarse), 0, 7) * coarse
    np.testing.assert_allclose(Quantizer(*found)(x).numpy(), low + high, atol=1e-6)


def test_scaling_keeps_codes() -> None:
    qparams = scaled(QuantParams.per_tensor(0.5, 3, -8, 7), 0.5)
    assert (float(qparams.scale), int(qparams.zero_point), qparams.qmin) == (0.25, 3, -8)


@pytest.mark.parametrize("bits", [4, 6])
def test_the_method_gives_gelus_twin_ranges_with_the_border_at_zero(bits: int) -> None:
    graph = quantized("class_token", f"w8a{bits}", "ptq4vit")
    gelus = [node for node in graph if node.op is OpKind.GELU]
    assert gelus
    for node in gelus:
        twin = twin_of(node)
        assert node.out is not None and twin is not None
        assert twin.split == int(node.out.zero_point)
        assert twin.split - node.out.qmin == 2 ** (bits - 1)
        assert (node.out.qmax - twin.split) >> twin.shift == 2 ** (bits - 1) - 1
