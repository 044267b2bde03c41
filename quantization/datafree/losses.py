r"""The losses of PSAQ-ViT (arXiv:2203.02250, Sec. 3.2 and 3.3), for each picture on its own.

Patch similarity of one attention block, O (N, C) its output for N patches:

    Gamma[i, j] = O[i] . O[j] / (|O[i]| |O[j]|)

Its density by a Gaussian kernel, over all M = N**2 similarities s_m, and the differential entropy:

    f(x) = 1 / (M h) sum_m K((x - s_m) / h),    H = -integral f(x) log f(x) dx

Real pictures have foreground and background and so a wide range of similarities: a high entropy.
Noise has none. The generator maximizes the sum over the blocks, L_PSE = -sum_l H_l.

The priors: cross entropy with a class chosen at random, and total variation, held at the level of
natural pictures.

Deviations from the published code (github.com/zkkli/PSAQ-ViT):

- There f is evaluated at ten points between the extremes of the batch with h = 0.01, far fewer
  than the kernel's width needs. Here the similarities are put on a fine grid over [-1, 1], each
  divided between its two neighbours, and the grid is convolved with the kernel (h = 0.02): the
  integral is accurate to 1 % and costs one pass over the similarities.
- There O is the mean over the heads before the output projection. Here it is the paper's output
  of the attention block, behind the projection.
- There the norms of the total variation run over the batch, so that a picture depends on its
  neighbours. Here they are root mean squares of each picture; weight and target are converted.
"""

import math
from functools import cache

import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

GRID_STEP = 0.01
BANDWIDTH = 0.02
REACH = 1 + 4 * BANDWIDTH
"""Similarities lie in [-1, 1]; the grid is wider by four widths of the kernel."""
SMALL = 1e-8

PUBLISHED_BATCH, PUBLISHED_VALUES = 32, 3 * 224 * 224
_NORM = math.sqrt(PUBLISHED_BATCH * PUBLISHED_VALUES)
TV_TARGET = (2500 / _NORM, 3000 / _NORM)
"""Published: uniform in [2500, 3000] for norms over 32 pictures of 3 x 224 x 224."""
TV_WEIGHT = 0.05 * math.sqrt(PUBLISHED_BATCH) * math.sqrt(PUBLISHED_VALUES)
"""Published: 0.05 on the batch's norm, beside means over the batch. The norm's gradient in one
picture is 1 / sqrt(32) of that of the picture's own norm, that of a mean 1 / 32."""


def patch_similarity(tokens: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of all pairs of patches.

    Args:
        tokens: (..., N, C) output of an attention block.

    Returns:
        (..., N, N) in [-1, 1].
    """
    unit = F.normalize(tokens, dim=-1, eps=SMALL)
    return unit @ unit.transpose(-1, -2)


def kernel_density(samples: torch.Tensor) -> torch.Tensor:
    """Gaussian kernel density estimate on the grid.

    Args:
        samples: (B, M) in [-1, 1].

    Returns:
        (B, G) density at -REACH, -REACH + GRID_STEP, ...; it integrates to 1.
    """
    kernel = _kernel_matrix().to(samples)
    position = (samples.clamp(-1, 1) + REACH) / GRID_STEP
    below = position.detach().floor().long()
    above_share = position - below
    bins = samples.new_zeros(samples.shape[0], kernel.shape[0])
    bins = bins.scatter_add(1, below, 1 - above_share)
    bins = bins.scatter_add(1, below + 1, above_share)
    return bins @ kernel / samples.shape[1]


@cache
def _kernel_matrix() -> torch.Tensor:
    """(G, G): row g is the kernel around grid point g, normalized on the grid."""
    count = 2 * round(REACH / GRID_STEP) + 1
    grid = torch.arange(count, dtype=torch.float64) * GRID_STEP
    distance = (grid[:, None] - grid[None, :]) / BANDWIDTH
    kernel = torch.exp(-0.5 * distance.square())
    return (kernel / kernel.sum(dim=1, keepdim=True) / GRID_STEP).to(torch.float32)


def differential_entropy(density: torch.Tensor) -> torch.Tensor:
    """``-sum f log f`` times the grid's step: (B, G) -> (B,), in nats."""
    return -torch.xlogy(density, density.clamp_min(SMALL)).sum(dim=-1) * GRID_STEP


def similarity_entropy(tokens: torch.Tensor, pictures: int) -> torch.Tensor:
    """Entropy of one block's patch similarities.

    Args:
        tokens: (pictures * windows, N, C) output of an attention block.
        pictures: B.

    Returns:
        (B,) nats; the windows of one picture share a density.
    """
    similar = patch_similarity(tokens)
    return differential_entropy(kernel_density(similar.reshape(pictures, -1)))


def total_variation(x: torch.Tensor) -> torch.Tensor:
    """Sum of the root mean square differences to the neighbours in four directions.

    Args:
        x: (B, C, H, W) normalized pictures.

    Returns:
        (B,).
    """
    differences = (
        x[..., :, :-1] - x[..., :, 1:],
        x[..., :-1, :] - x[..., 1:, :],
        x[..., 1:, :-1] - x[..., :-1, 1:],
        x[..., :-1, :-1] - x[..., 1:, 1:],
    )
    values = x[0].numel()
    squares = (d.square().sum(dim=(1, 2, 3)) / values for d in differences)
    return sum((torch.sqrt(s + SMALL) for s in squares), start=x.new_zeros(x.shape[0]))


def variation_loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Distance of the total variation from the level of natural pictures.

    Args:
        x: (B, C, H, W).
        target: (B,), drawn from `TV_TARGET`.

    Returns:
        (B,).
    """
    return TV_WEIGHT * (total_variation(x) - target).abs()
