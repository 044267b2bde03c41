"""A small YOLOS-like detector for the digits of `models.scenes`.

A plain ViT on 8 x 8 patches of 8 pixels, with 16 detection tokens behind them; two heads read
those tokens: digit or none (11 logits), and the box (centre x, centre y, width, height, each in
(0, 1) of the picture), as DETR's and YOLOS's do (arXiv:2106.00666).

The import stays light: torch is loaded by `scenes_yolos()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitq.models.scenes import IMAGE_SIZE, MEAN, STD

if TYPE_CHECKING:
    from torch import nn

NUM_CLASSES = 10
NO_OBJECT = NUM_CLASSES
"""The last logit: no digit."""
CHECKPOINT = Path(__file__).with_name("scenes_yolos.safetensors")

__all__ = ["CHECKPOINT", "IMAGE_SIZE", "MEAN", "NO_OBJECT", "NUM_CLASSES", "STD", "scenes_yolos"]


def scenes_yolos() -> nn.Module:
    """Return the model with random weights; the trained ones are at `CHECKPOINT`."""
    from vitq.models.scenes_yolos.model import ScenesYolos

    return ScenesYolos(IMAGE_SIZE, NUM_CLASSES)
