"""The detector's network."""

from __future__ import annotations

import math

import torch
from torch import nn

PATCH_SIZE = 8
DIM = 96
DEPTH = 6
NUM_HEADS = 4
MLP_RATIO = 2
GRID = 4
"""Detection tokens a side; each begins at a place of its own."""
BOX_PRIOR = 0.3
"""Side of the box that a detection token begins with."""


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, MLP_RATIO * DIM), nn.Linear(MLP_RATIO * DIM, DIM)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, NUM_HEADS, c // NUM_HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(a.transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


def _sines(centres: torch.Tensor) -> torch.Tensor:
    """Positions (N, 2) in (0, 1) -> (N, DIM) sines and cosines of both coordinates."""
    steps = math.pi * 2.0 ** torch.linspace(0, 4, DIM // 4)
    angles = centres[:, :, None] * steps
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def _centres(side: int) -> torch.Tensor:
    """(side**2, 2): x, y of a grid's cells."""
    at = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=2).reshape(-1, 2)


class ScenesYolos(nn.Module):
    """Patches and detection tokens through a plain ViT.

    Deviations from YOLOS: each detection token has a place of a grid at the beginning, in its
    position embedding and in a bias of its box's logits, both of which are learned on; no class
    token; trained from nothing.

    Args:
        image_size: side of a picture.
        classes: kinds of objects.
    """

    def __init__(self, image_size: int, classes: int) -> None:
        super().__init__()
        side = image_size // PATCH_SIZE
        self.patch_embed = nn.Conv2d(3, DIM, PATCH_SIZE, PATCH_SIZE)
        self.pos_embed = nn.Parameter(0.5 * _sines(_centres(side))[None])
        self.detection_tokens = nn.Parameter(0.5 * _sines(_centres(GRID))[None])
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM)
        self.class_head = _head(classes + 1)
        self.box_head = _head(4)
        size = torch.full((GRID * GRID, 2), BOX_PRIOR)
        self.box_bias = nn.Parameter(torch.logit(torch.cat([_centres(GRID), size], dim=1))[None])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) -> scores (B, Q, classes + 1) and boxes (B, Q, 4), cx cy w h in (0, 1)."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        x = torch.cat([x, self.detection_tokens.expand(x.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        found = self.norm(x[:, -GRID * GRID :])
        boxes = self.box_head(found) + self.box_bias
        return {"scores": self.class_head(found), "boxes": boxes.sigmoid()}


def _head(width: int) -> nn.Sequential:
    """Two hidden layers, as DETR's boxes have."""
    return nn.Sequential(
        nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, width)
    )
