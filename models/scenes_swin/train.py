"""Train the segmenter of scenes on one CPU core and write its checkpoint.

Usage: `python -m vitq.models.scenes_swin.train --output scenes_swin.safetensors --seed 0`.

The loss is the cross entropy of each pixel, those of the rims left out, digits weighing more than
the background, which is nine pixels of ten.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vitq.models.digits_vit.data import normalize
from vitq.models.scenes import IGNORE
from vitq.models.scenes.data import Scenes, eval_scenes
from vitq.models.scenes.training import SceneConfig, train_and_save
from vitq.models.scenes_swin import CHECKPOINT, NUM_CLASSES, scenes_swin

DIGIT_WEIGHT = 3.0
CONFIG = SceneConfig(steps=3000, learning_rate=2e-3, batch_size=16)


def loss(model: nn.Module, x: torch.Tensor, scenes: Scenes, chosen: np.ndarray) -> torch.Tensor:
    """Cross entropy of a batch's pixels."""
    masks = torch.from_numpy(scenes.masks[chosen].astype(np.int64))
    weight = torch.full((NUM_CLASSES,), DIGIT_WEIGHT)
    weight[0] = 1.0
    return functional.cross_entropy(model(x), masks, weight, ignore_index=IGNORE)


def mean_iou(maps: np.ndarray, masks: np.ndarray) -> float:
    """Mean over the classes of intersection by union; both (N, H, W), rims left out."""
    seen = masks != IGNORE
    pairs = masks[seen].astype(np.int64) * NUM_CLASSES + maps[seen]
    counts = np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)
    both = np.diag(counts)
    return float((both / (counts.sum(0) + counts.sum(1) - both)).mean())


def measure(model: nn.Module) -> dict[str, float]:
    """Mean IoU on the held-out scenes."""
    scenes = eval_scenes()
    with torch.inference_mode():
        maps = [
            model(part).argmax(1) for part in torch.from_numpy(normalize(scenes.images)).split(20)
        ]
    return {"miou": mean_iou(torch.cat(maps).numpy(), scenes.masks)}


def main(argv: list[str] | None = None) -> None:
    """Train the segmenter."""
    train_and_save(scenes_swin, loss, measure, CHECKPOINT, CONFIG, argv)


if __name__ == "__main__":
    main()
