"""Gradient descent on pictures, as PSAQ-ViT does it (arXiv:2203.02250, Sec. 4.1, and its code).

Adam with betas (0.5, 0.9) on the normalized pictures, a random shift and flip before each step (so
that nothing depends on where the patches' borders are), colours clipped to what pixels can be
after each step, and the learning rate warmed up and then lowered to zero along a cosine.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from vitq.numerics.arrays import UInt8Array
from vitq.quantization.datafree.request import Request, Track

LEARNING_RATE = 0.2
BETAS = (0.5, 0.9)
WARMUP = 0.2
"""Fraction of the steps (published: 100 of 500)."""
SHIFT = 1 / 8
"""Largest shift as a fraction of the side (published: 15 of 224, then 30)."""

BATCH = 8
"""Pictures that are changed together; their loss is a sum, so none depends on the others."""

Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Normalization:
    """A model's input normalization, and the way back to pixels.

    Attributes:
        mean: (C, 1, 1) in [0, 1] units.
        std: likewise.
    """

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, request: Request) -> "Normalization":
        """From the model's numbers."""
        numbers = (request.mean, request.std)
        values = (torch.tensor(v, dtype=torch.float32, device=request.device) for v in numbers)
        return cls(*(v.reshape(-1, 1, 1) for v in values))

    def clip(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest normalized pictures that are pictures, colours in [0, 1]."""
        return ((x * self.std + self.mean).clamp(0, 1) - self.mean) / self.std

    def pixels(self, x: torch.Tensor) -> UInt8Array:
        """Convert normalized pictures (N, C, H, W) to uint8, rounded to nearest."""
        values = (x.detach() * self.std + self.mean).clamp(0, 1) * 255
        found: UInt8Array = values.round().to(torch.uint8).cpu().numpy()
        return found


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero.

    Args:
        step: 0 to steps - 1.
        steps: all of them.
    """
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return LEARNING_RATE * (step + 1) / warm
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def descend(
    x: torch.Tensor,
    loss: Loss,
    normalization: Normalization,
    random: np.random.RandomState,
    steps: Iterable[int],
    count: int,
) -> torch.Tensor:
    """Lower the loss of a batch of pictures.

    Args:
        x: (B, C, H, W) normalized pictures to begin with.
        loss: of (B, C, H, W), a sum over the pictures.
        normalization: for clipping.
        random: of the shifts and flips.
        steps: 0 to count - 1, wrapped with a progress bar.
        count: number of steps.

    Returns:
        (B, C, H, W) normalized, clipped.
    """
    x = x.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=LEARNING_RATE, betas=BETAS)
    reach = max(1, int(SHIFT * x.shape[-1]))
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, count)
        shift = random.randint(-reach, reach + 1, 2).tolist()
        view = torch.roll(x, shifts=shift, dims=(2, 3))
        if random.randint(2):
            view = view.flip(3)
        optimizer.zero_grad()
        loss(view).backward()
        optimizer.step()
        with torch.no_grad():
            x.copy_(normalization.clip(x))
    return x.detach()


def descend_in_batches(
    x: torch.Tensor,
    loss_of: Callable[[slice], Loss],
    request: Request,
    random: np.random.RandomState,
    track: Track,
    title: str,
    count: int,
) -> torch.Tensor:
    """Lower the loss of all pictures, a few at a time.

    Args:
        x: (N, C, H, W) normalized pictures to begin with.
        loss_of: which pictures -> their loss.
        request: normalization and device.
        random: of the shifts and flips.
        track: wraps the steps with a progress bar.
        title: of the bar.
        count: number of steps.

    Returns:
        (N, C, H, W) normalized, clipped.
    """
    normalization = Normalization.of(request)
    found = []
    for first in range(0, len(x), BATCH):
        part = slice(first, min(first + BATCH, len(x)))
        bar = track(range(count), f"{title}, {part.stop} of {len(x)}", count)
        found.append(descend(x[part], loss_of(part), normalization, random, bar, count))
    return torch.cat(found)
