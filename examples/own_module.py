"""A module that was trained a moment ago: no file, no name. python examples/own_module.py."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import vitq
from vitq.models.digits_vit.data import load_digits_split

MEAN = STD = (0.5, 0.5, 0.5)
STEPS, BATCH = 150, 64


class Block(nn.Module):
    """Attention and MLP, pre-norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, C) to tokens."""
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class MyVit(nn.Module):
    """Nothing that vitq knows by name: it is recognised by what it computes."""

    def __init__(self, dim: int = 48, depth: int = 2, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, kernel_size=8, stride=8)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, 32, 32) to logits (B, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def normalized(pixels: np.ndarray) -> torch.Tensor:
    """Return what the model takes: uint8 (N, 3, H, W) as float32 around 0."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (torch.tensor(pixels) / 255 - mean) / std


def train(pixels: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Make a small ViT after a few steps."""
    torch.manual_seed(0)
    model = MyVit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    inputs, targets = normalized(pixels), torch.tensor(labels)
    for step in range(STEPS):
        chosen = torch.randint(len(targets), (BATCH,))
        loss = functional.cross_entropy(model(inputs[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}")
    return model


def main() -> None:
    """Train, quantize, compile, compare."""
    data, held_out = load_digits_split()
    model = train(data.images, data.labels)

    # A module that has timm's pretrained_cfg says itself what its input means; this one does not.
    q = vitq.quantize(model, data.images[:32], image_size=32, mean=MEAN, std=STD, name="my_vit")
    lib = vitq.compile(q, batch=8)
    lib.verify(held_out.images[:8])

    rows = lib.evaluate(held_out.images, held_out.labels, backends=["float", "library"])
    for name, row in rows.items():
        print(f"{name}: {row.top1} of {row.images}")
    print(f"same first choice: {100 * rows['library'].agreement:.1f} %")


if __name__ == "__main__":
    main()
