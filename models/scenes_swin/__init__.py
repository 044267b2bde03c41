"""A small Swin that says the class of each pixel of `models.scenes`.

    stage 1    16 x 16 tokens, 48 wide, 3 heads    4 windows of 8 x 8, then the same shifted by 4
    stage 2    8 x 8 tokens, 96 wide, 6 heads      one window

The head (`models.scenes_swin.model.TokenHead`) is made of linear layers alone: what a transposed
convolution of stride 2 and kernel 2 is, it spells as a linear layer and a reshape.

The import stays light: timm and torch are loaded by `scenes_swin()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitq.models.scenes import CLASS_NAMES, IMAGE_SIZE, MEAN, STD

if TYPE_CHECKING:
    from torch import nn

NUM_CLASSES = len(CLASS_NAMES)
CHECKPOINT = Path(__file__).with_name("scenes_swin.safetensors")

__all__ = ["CHECKPOINT", "IMAGE_SIZE", "MEAN", "NUM_CLASSES", "STD", "scenes_swin"]


def scenes_swin() -> nn.Module:
    """Return the model with random weights; the trained ones are at `CHECKPOINT`."""
    from vitq.models.scenes_swin.model import ScenesSwin

    return ScenesSwin(IMAGE_SIZE, NUM_CLASSES)
