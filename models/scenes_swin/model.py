"""The segmenter's network: timm's Swin and a head that can be swapped."""

from __future__ import annotations

import torch
from torch import nn

from vitq.models.timm_compat import import_timm

PATCH_SIZE = 4
DIM = 48
DEPTHS = (2, 2)
NUM_HEADS = (3, 6)
WINDOW_SIZE = 8
MLP_RATIO = 3
HEAD_DIM = 128


class TokenHead(nn.Module):
    """Two levels of tokens to a map of classes, by linear layers alone.

        coarse (B, H/8, W/8, 2 C) -> norm -> linear -> 2 x 2 tokens of C each --+
        fine   (B, H/4, W/4, C)   -> norm -> linear ----------------------------+-> norm
            -> linear, GELU, linear -> 4 x 4 pixels of each token -> (B, classes, H, W)

    Args:
        dim: C.
        classes: of the map.
        patch: pixels on a side of a fine token.
    """

    def __init__(self, dim: int, classes: int, patch: int) -> None:
        super().__init__()
        self.classes, self.patch = classes, patch
        self.fine_norm, self.coarse_norm = nn.LayerNorm(dim), nn.LayerNorm(2 * dim)
        self.lateral = nn.Linear(dim, dim)
        self.up = nn.Linear(2 * dim, 4 * dim)
        self.norm = nn.LayerNorm(dim)
        self.hidden, self.act = nn.Linear(dim, HEAD_DIM), nn.GELU()
        self.pixels = nn.Linear(HEAD_DIM, patch * patch * classes)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) and (B, h/2, w/2, 2 C) -> (B, classes, h * patch, w * patch)."""
        b, h, w, dim = fine.shape
        up = self.up(self.coarse_norm(coarse)).reshape(b, h // 2, w // 2, 2, 2, dim)
        up = up.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, dim)
        x = self.norm(self.lateral(self.fine_norm(fine)) + up)
        x = self.pixels(self.act(self.hidden(x)))
        x = x.reshape(b, h, w, self.patch, self.patch, self.classes)
        x = x.permute(0, 5, 1, 3, 2, 4)
        return x.reshape(b, self.classes, h * self.patch, w * self.patch)


class ScenesSwin(nn.Module):
    """timm's Swin of two stages, both of which the head reads.

    Args:
        image_size: side of a picture.
        classes: of the map.
        head: takes both stages; None for `TokenHead`.
    """

    def __init__(self, image_size: int, classes: int, head: nn.Module | None = None) -> None:
        super().__init__()
        swin = import_timm().models.SwinTransformer(
            img_size=image_size,
            patch_size=PATCH_SIZE,
            num_classes=0,
            embed_dim=DIM,
            depths=DEPTHS,
            num_heads=NUM_HEADS,
            window_size=WINDOW_SIZE,
            mlp_ratio=MLP_RATIO,
            drop_path_rate=0.0,
        )
        self.patch_embed, self.layers = swin.patch_embed, swin.layers
        self.head = TokenHead(DIM, classes, PATCH_SIZE) if head is None else head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, classes, H, W)."""
        fine = self.layers[0](self.patch_embed(x))
        maps: torch.Tensor = self.head(fine, self.layers[1](fine))
        return maps
