"""The losses of PSAQ-ViT against sums and integrals written out in NumPy."""

import math

import numpy as np
import pytest
import torch

from vitq.numerics.arrays import FloatArray
from vitq.quantization.datafree import losses

GRID = -losses.REACH + losses.GRID_STEP * np.arange(2 * round(losses.REACH / losses.GRID_STEP) + 1)


def direct_density(samples: FloatArray) -> FloatArray:
    """One Gaussian for each sample, summed at each point of the grid."""
    h = losses.BANDWIDTH
    z = (GRID[:, None] - samples[None, :].astype(np.float64)) / h
    density: FloatArray = (np.exp(-(z**2) / 2) / (h * math.sqrt(2 * math.pi))).mean(axis=1)
    return density


def entropy_of(density: FloatArray) -> float:
    """The trapezoidal rule on -f log f."""
    terms = [-f * math.log(f) if f > 0 else 0.0 for f in density]
    return float(np.trapezoid(terms, GRID))


def sample_sets() -> dict[str, FloatArray]:
    random = np.random.RandomState(0)
    return {
        "narrow": random.normal(0.9, 0.01, 4000).clip(-1, 1),
        "wide": random.uniform(-1, 1, 4000),
        "two peaks": np.concatenate([random.normal(m, 0.05, 2000) for m in (-0.5, 0.6)]),
        "ends": np.repeat([-1.0, 1.0], 50),
        "few": np.array([0.123, -0.456, 0.789]),
    }


@pytest.mark.parametrize("name", list(sample_sets()))
def test_density_and_entropy_equal_the_direct_sums(name: str) -> None:
    samples = sample_sets()[name].astype(np.float32)
    found = losses.kernel_density(torch.from_numpy(samples)[None])
    expected = direct_density(samples)
    assert np.abs(found.numpy()[0] - expected).max() <= 0.04 * expected.max()
    assert float(found.sum()) * losses.GRID_STEP == pytest.approx(1, abs=1e-4)
    entropy = float(losses.differential_entropy(found)[0])
    assert entropy == pytest.approx(entropy_of(expected), abs=0.03)


def test_entropy_of_a_normal_distribution() -> None:
    samples = np.random.RandomState(1).normal(0, 0.2, 200_000).astype(np.float32)
    samples = samples[np.abs(samples) < 1]
    sigma = math.hypot(0.2, losses.BANDWIDTH)
    found = losses.differential_entropy(losses.kernel_density(torch.from_numpy(samples)[None]))
    assert float(found[0]) == pytest.approx(
        math.log(sigma * math.sqrt(2 * math.pi * math.e)), abs=0.01
    )


def test_gradient_of_the_entropy_is_that_of_small_changes() -> None:
    random = np.random.RandomState(2)
    below = random.randint(20, 180, (2, 12))
    inside = random.uniform(0.2, 0.8, (2, 12))  # not where one bin ends and the next begins
    values = -losses.REACH + losses.GRID_STEP * (below + inside)
    samples = torch.from_numpy(values).double().requires_grad_()

    def entropy(x: torch.Tensor) -> torch.Tensor:
        return losses.differential_entropy(losses.kernel_density(x))

    assert torch.autograd.gradcheck(entropy, (samples,), eps=1e-5, atol=1e-4, rtol=1e-3)


def test_patch_similarity_is_the_cosine_of_each_pair() -> None:
    tokens = np.random.RandomState(3).normal(size=(2, 5, 7)).astype(np.float32)
    tokens[1, 2] = 0  # no direction: similar to nothing
    found = losses.patch_similarity(torch.from_numpy(tokens)).numpy()
    for b in range(2):
        for i in range(5):
            for j in range(5):
                u, v = tokens[b, i].astype(np.float64), tokens[b, j].astype(np.float64)
                length = math.sqrt((u**2).sum()) * math.sqrt((v**2).sum())
                assert found[b, i, j] == pytest.approx(u @ v / length if length else 0, abs=1e-5)


def test_windows_of_a_picture_share_a_density() -> None:
    tokens = torch.randn(6, 9, 8, generator=torch.Generator().manual_seed(4))
    found = losses.similarity_entropy(tokens, pictures=2)
    assert found.shape == (2,)
    pooled = torch.cat([losses.patch_similarity(t).flatten() for t in tokens[:3]])
    alone = losses.differential_entropy(losses.kernel_density(pooled[None]))
    assert float(found[0]) == pytest.approx(float(alone[0]), abs=1e-5)


def test_total_variation_sums_four_directions() -> None:
    x = np.random.RandomState(5).normal(size=(2, 3, 6, 5))
    found = losses.total_variation(torch.from_numpy(x)).numpy()
    for b in range(2):
        total = 0.0
        for dy, dx in ((0, 1), (1, 0), (1, -1), (1, 1)):
            squares = [
                (x[b, c, i, j] - x[b, c, i + dy, j + dx]) ** 2
                for c in range(3)
                for i in range(6)
                for j in range(5)
                if 0 <= i + dy < 6 and 0 <= j + dx < 5
            ]
            total += math.sqrt(sum(squares) / x[b].size)
        assert found[b] == pytest.approx(total, abs=1e-6)


def test_variation_target_and_weight_are_the_published_ones() -> None:
    """Norms over a batch of 32 pictures between 2500 and 3000, weight 0.05 beside mean losses."""
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(6)).double()
    batch = picture.expand(32, -1, -1, -1).clone().requires_grad_()
    big = math.sqrt(3 * 224 * 224 / picture.numel())  # what 224 pixels would make of the norm
    differences = (
        batch[..., :-1] - batch[..., 1:],
        batch[..., :-1, :] - batch[..., 1:, :],
        batch[..., 1:, :-1] - batch[..., :-1, 1:],
        batch[..., :-1, :-1] - batch[..., 1:, 1:],
    )
    norm = big * sum(torch.linalg.vector_norm(d) for d in differences)
    assert isinstance(norm, torch.Tensor)
    published_target = 2800.0
    ours = losses.variation_loss(batch, batch.new_full((32,), published_target / losses._NORM))
    assert losses.TV_TARGET[0] * losses._NORM == pytest.approx(2500)
    (published,) = torch.autograd.grad(0.05 * (norm - published_target).abs(), batch)
    (found,) = torch.autograd.grad(ours.mean(), batch)
    assert torch.allclose(found, published, rtol=1e-5, atol=1e-9)
