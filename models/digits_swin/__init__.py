"""A tiny Swin for the same digits as `models.digits_vit`: windows, shifts, patch merging.

It is timm's own class, so that what works here works on timm's Swins. 32 x 32 pictures become 8 x 8
tokens of width 48:

    stage 1    8 x 8 tokens, 48 wide, 3 heads    4 windows of 4 x 4, then the same shifted by 2
    merging    4 x 4 x (4 x 48) -> norm -> linear without a bias -> 96
    stage 2    4 x 4 tokens, 96 wide, 6 heads    one window, no shift, as in the last stage of Swin

The shifted block's four windows have the four masks that a Swin of any size has: none, right edge,
bottom edge, corner. Each block adds a relative position bias for each head.

The import stays light: timm and torch are loaded by `digits_swin()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitq.models.digits_vit import IMAGE_SIZE, MEAN, NUM_CLASSES, STD

if TYPE_CHECKING:
    from torch import nn

PATCH_SIZE = 4
DIM = 48
DEPTHS = (2, 2)
NUM_HEADS = (3, 6)
WINDOW_SIZE = 4
MLP_RATIO = 2
CHECKPOINT = Path(__file__).with_name("digits_swin.safetensors")

__all__ = ["CHECKPOINT", "IMAGE_SIZE", "MEAN", "NUM_CLASSES", "STD", "digits_swin"]


def digits_swin() -> nn.Module:
    """Return the model with random weights; the trained ones are at `CHECKPOINT`."""
    from vitq.models.timm_compat import import_timm

    model: nn.Module = import_timm().models.SwinTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_classes=NUM_CLASSES,
        embed_dim=DIM,
        depths=DEPTHS,
        num_heads=NUM_HEADS,
        window_size=WINDOW_SIZE,
        mlp_ratio=MLP_RATIO,
        drop_path_rate=0.0,
    )
    return model
