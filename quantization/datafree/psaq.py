"""PSAQ-ViT (arXiv:2203.02250): pictures from noise, by the float model's patch similarity.

For a picture I and a class c chosen at random (Sec. 3.3),

    L_G = L_PSE + L_OH + a L_TV,   L_OH = CE(P(I), c)

with the terms of `quantization.datafree.losses`. Deviation: the published code takes 2 x 500 steps
on a GPU; here it is one cosine of `STEPS`. A model that ranks no classes has no L_OH.
"""

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.quantization.datafree.descent import Loss, Normalization, descend_in_batches
from vitq.quantization.datafree.losses import TV_TARGET, variation_loss
from vitq.quantization.datafree.request import Request, Track
from vitq.quantization.datafree.teacher import Teacher
from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.outputs import LOGITS

STEPS = 200


def gaussian_noise(request: Request, graph: Graph) -> torch.Tensor:
    """Draw standard Gaussian noise, clipped to pictures: the beginning, and the control.

    Returns:
        (N, C, H, W) normalized.
    """
    random = np.random.RandomState(request.seed)
    values = random.standard_normal((request.count, *graph.input.shape[1:])).astype(np.float32)
    return Normalization.of(request).clip(torch.from_numpy(values).to(request.device))


def variation_targets(request: Request, random: np.random.RandomState) -> torch.Tensor:
    """Return the total variation that each picture is held at, (N,)."""
    values = random.uniform(*TV_TARGET, request.count).astype(np.float32)
    return torch.from_numpy(values).to(request.device)


def psaq_pictures(request: Request, graph: Graph, track: Track) -> UInt8Array:
    """Make calibration pictures.

    Args:
        request: how many, seed, steps, normalization, device.
        graph: float, as traced.
        track: wraps the steps with a progress bar.

    Returns:
        (N, C, H, W) uint8.
    """
    teacher = Teacher(graph, request.device)
    random = np.random.RandomState(request.seed + 1)
    layout = graph.layout
    chosen = _classes(random, request.count, layout.classes or 1)
    classes = torch.from_numpy(chosen).to(request.device)
    targets = variation_targets(request, random)

    def loss_of(part: slice) -> Loss:
        def loss(x: torch.Tensor) -> torch.Tensor:
            rows, entropy = teacher(x)
            one_hot = torch.zeros_like(entropy)
            if layout.classes is not None:
                logits = layout.split(rows)[LOGITS]
                one_hot = F.cross_entropy(logits, classes[part], reduction="none")
            return (one_hot - entropy + variation_loss(x, targets[part])).sum()

        return loss

    start, steps = gaussian_noise(request, graph), request.steps or STEPS
    x = descend_in_batches(start, loss_of, request, random, track, "psaq", steps)
    return Normalization.of(request).pixels(x)


def _classes(random: np.random.RandomState, count: int, classes: int) -> IntArray:
    """Random classes, none twice before all had their turn."""
    turns = -(-count // classes)
    return np.concatenate([random.permutation(classes) for _ in range(turns)])[:count]
