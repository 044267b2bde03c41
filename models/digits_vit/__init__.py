"""A tiny DeiT-style ViT for scikit-learn's handwritten digits: no download, a CPU is enough.

The import stays light: torch is loaded by `digits_vit()`, scikit-learn by the functions of
`models.digits_vit.data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitq.models.digits_vit.model import DigitsViT

IMAGE_SIZE = 32
NUM_CLASSES = 10
# 0.5 rather than the measured mean: it maps uint8 0..255 onto exactly [-1, 1], so that a symmetric
# int8 quantizer of the input wastes no codes.
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
CHECKPOINT = Path(__file__).with_name("digits_vit.safetensors")

__all__ = ["CHECKPOINT", "IMAGE_SIZE", "MEAN", "NUM_CLASSES", "STD", "digits_vit"]


def digits_vit() -> DigitsViT:
    """Return the model with random weights; the trained ones are at `CHECKPOINT`."""
    from vitq.models.digits_vit.model import DigitsViT

    return DigitsViT(image_size=IMAGE_SIZE, num_classes=NUM_CLASSES)
