"""Small ViTs of every structure that timm's real ones have, as `package.module:factory`."""

from typing import Any

import torch

from vitq.models.timm_compat import import_timm

SIZE = 32
CENTRED = {"input_size": (3, SIZE, SIZE), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""What timm says of a model whose pictures are -1 to 1."""


def _vit(**options: Any) -> torch.nn.Module:
    timm = import_timm()
    defaults = {
        "img_size": SIZE,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 7,
    }
    model: torch.nn.Module = timm.models.vision_transformer.VisionTransformer(**{
        **defaults,
        **options,
    })
    model.default_cfg = {  # type: ignore[assignment]
        "input_size": (3, SIZE, SIZE),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return model


def plain() -> torch.nn.Module:
    """Class token, as DeiT and ViT."""
    return _vit()


def pooled() -> torch.nn.Module:
    """Mean over tokens instead of a class token's selection."""
    return _vit(global_pool="avg", class_token=False)


def layer_scale() -> torch.nn.Module:
    """LayerScale behind attention and MLP, position embedding without the class token."""
    return _vit(init_values=0.1, no_embed_class=True)


def distilled() -> torch.nn.Module:
    """Two heads whose logits are averaged."""
    timm = import_timm()
    model: torch.nn.Module = timm.models.deit.VisionTransformerDistilled(
        img_size=SIZE, patch_size=8, embed_dim=64, depth=2, num_heads=2, num_classes=7
    )
    model.default_cfg = plain().default_cfg
    return model


class Maxima(torch.nn.Module):
    """Tokens pooled by maxima as Hiera does: of a layer's results and of a sum."""

    default_cfg = CENTRED

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 24, 8, 8)
        self.norm = torch.nn.LayerNorm(24)
        self.query = torch.nn.Linear(24, 24)
        self.head = torch.nn.Linear(24, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.conv(x).flatten(2).transpose(1, 2)
        y = self.query(self.norm(x))
        pooled = y.unflatten(1, (4, 4)).amax(2) + (x + y).unflatten(1, (4, 4)).amax(1)
        logits: torch.Tensor = self.head(self.norm(pooled).mean(1))
        return logits


def maxima() -> torch.nn.Module:
    """Maxima over tokens."""
    return Maxima()


class Unsupported(torch.nn.Module):
    """Operators that nothing here can make integer."""

    default_cfg = CENTRED

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sine and sort."""
        return torch.sin(self.conv(x)).flatten(1).sort().values


def unsupported() -> torch.nn.Module:
    """See `Unsupported`."""
    return Unsupported()


def not_a_module() -> int:
    """What a factory must not return."""
    return 5


class Attentionless(torch.nn.Module):
    """Patches, one residual branch, a head on their mean: nothing for psaq to look at."""

    default_cfg = Unsupported.default_cfg

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 8, 8)
        self.norm = torch.nn.LayerNorm(16)
        self.fc = torch.nn.Linear(16, 16)
        self.head = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(x + self.fc(self.norm(x))).mean(1))


def attentionless() -> torch.nn.Module:
    """See `Attentionless`."""
    return Attentionless()
