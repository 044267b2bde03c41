"""Train the detector of scenes on one CPU core and write its checkpoint.

Usage: `python -m vitq.models.scenes_yolos.train --output scenes_yolos.safetensors --seed 0`.

Set prediction as in DETR (arXiv:2005.12872, Eq. 1 and 2): scipy's linear_sum_assignment gives each
digit of a scene one detection token,

    cost = -p(class) + 5 |b - b'|_1 - 2 GIoU(b, b')

and the loss is the cross entropy of all tokens (no digit for those that got none, weighing 0.2)
and, of those that got one, 5 |b - b'|_1 + 2 (1 - GIoU), divided by the number of digits. There are
no auxiliary losses of inner blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional

from vitq.models.digits_vit.data import normalize
from vitq.models.scenes import IMAGE_SIZE
from vitq.models.scenes.data import Scenes, eval_scenes
from vitq.models.scenes.training import SceneConfig, train_and_save
from vitq.models.scenes_yolos import CHECKPOINT, NO_OBJECT, scenes_yolos

L1_WEIGHT, GIOU_WEIGHT, NONE_WEIGHT = 5.0, 2.0, 0.2
CONFIG = SceneConfig(steps=7000, learning_rate=1e-3, scenes=12000)


def corners(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) cx cy w h -> x0 y0 x1 y1."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def generalized_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """GIoU (arXiv:1902.09630) of boxes with corners, (..., 4) and (..., 4) -> (...)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp_min(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).prod(-1)
    return both / union.clamp_min(1e-6) - (hull - union) / hull.clamp_min(1e-6)


def _wanted(scenes: Scenes, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Boxes (M, 4) cx cy w h, digits (M,), and how many each picture has."""
    boxes = np.concatenate([scenes.boxes[i] for i in chosen]) / IMAGE_SIZE
    whole = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    digits = np.concatenate([scenes.digits[i] for i in chosen])
    counts = [len(scenes.digits[i]) for i in chosen]
    return torch.from_numpy(whole.astype(np.float32)), torch.from_numpy(digits), counts


def _match(
    found: dict[str, torch.Tensor], boxes: torch.Tensor, digits: torch.Tensor, counts: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which token of which picture gets which of all digits."""
    with torch.no_grad():
        chance = found["scores"].softmax(-1)[..., digits]
        near = (found["boxes"][:, :, None] - boxes).abs().sum(-1)
        overlap = generalized_iou(corners(found["boxes"])[:, :, None], corners(boxes))
        cost = (L1_WEIGHT * near - chance - GIOU_WEIGHT * overlap).numpy()
    pictures, tokens, targets, first = [], [], [], 0
    for picture, count in enumerate(counts):
        rows, columns = linear_sum_assignment(cost[picture, :, first : first + count])
        pictures += [picture] * count
        tokens += rows.tolist()
        targets += (columns + first).tolist()
        first += count
    return torch.tensor(pictures), torch.tensor(tokens), torch.tensor(targets)


def loss(model: nn.Module, x: torch.Tensor, scenes: Scenes, chosen: np.ndarray) -> torch.Tensor:
    """Loss of a batch's sets."""
    boxes, digits, counts = _wanted(scenes, chosen)
    found = model(x)
    pictures, tokens, targets = _match(found, boxes, digits, counts)
    classes = torch.full(found["scores"].shape[:2], NO_OBJECT)
    classes[pictures, tokens] = digits[targets]
    weight = torch.ones(NO_OBJECT + 1)
    weight[NO_OBJECT] = NONE_WEIGHT
    said = functional.cross_entropy(found["scores"].flatten(0, 1), classes.flatten(), weight)
    mine, right = found["boxes"][pictures, tokens], boxes[targets]
    near = (mine - right).abs().sum(-1).mean()
    overlap = generalized_iou(corners(mine), corners(right)).mean()
    return said + L1_WEIGHT * near + GIOU_WEIGHT * (1 - overlap)


def measure(model: nn.Module) -> dict[str, float]:
    """Share of held-out digits that a token with their class overlaps by half; no AP."""
    scenes = eval_scenes()
    boxes, digits, counts = _wanted(scenes, np.arange(len(scenes.images)))
    with torch.inference_mode():
        found = model(torch.from_numpy(normalize(scenes.images)))
    pictures, tokens, targets = _match(found, boxes, digits, counts)
    low, high = (corners(b) for b in (found["boxes"][pictures, tokens], boxes[targets]))
    both = (
        (torch.minimum(low[:, 2:], high[:, 2:]) - torch.maximum(low[:, :2], high[:, :2]))
        .clamp_min(0)
        .prod(-1)
    )
    union = (low[:, 2:] - low[:, :2]).prod(-1) + (high[:, 2:] - high[:, :2]).prod(-1) - both
    right = found["scores"][pictures, tokens].argmax(-1) == digits[targets]
    return {"recall50": float((right & (both / union >= 0.5)).float().mean())}


def main(argv: list[str] | None = None) -> None:
    """Train the detector."""
    train_and_save(scenes_yolos, loss, measure, CHECKPOINT, CONFIG, argv)


if __name__ == "__main__":
    main()
