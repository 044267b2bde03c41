"""Small convolutional networks, hand-written; BatchNorm with statistics that are not 0 and 1."""

import torch
from torch import nn
from torch.nn import functional


def settled(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics, and every other parameter the same values each time."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.uniform_(module.weight, -0.4, 0.4)
    return model.eval()


class Residual(nn.Module):
    """A convolution, BatchNorm, a function, 1x1, LayerScale of (C, 1, 1), and x."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.linspace(0.2, 1.0, channels).reshape(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(x)))
        return x + self.second(y) * self.gamma


class SqueezeExcite(nn.Module):
    """Mean of each channel, two 1x1, sigmoid, and a product with x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 1)
        self.second = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.second(y))


def head(channels: int) -> list[nn.Module]:
    """Mean of the map, and a linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


def depthwise() -> nn.Module:
    """One kernel for each channel, two for each, and groups between the extremes."""
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Residual(8, 8)]
    middle = [nn.Conv2d(8, 16, 3, 2, 1, groups=8), nn.BatchNorm2d(16), nn.Hardswish()]
    last = [nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 8, 1, groups=2)]
    return settled(nn.Sequential(*stem, *middle, *last, *head(8)))


def pooled() -> nn.Module:
    """Windows that overlap and reach outside; a map that grows."""
    maxima = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 1)]
    means = [nn.GELU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(8, 8, 1),
             nn.AvgPool2d(3, 1, 1)]  # fmt: skip
    wider = [nn.ConvTranspose2d(8, 8, 2, 2), nn.GELU(), nn.ConvTranspose2d(8, 4, 3, 2, 1)]
    last = [nn.BatchNorm2d(4), nn.UpsamplingNearest2d(scale_factor=2), nn.PixelUnshuffle(2)]
    return settled(nn.Sequential(*maxima, *means, *wider, *last, *head(16)))


class LinearAttention(nn.Module):
    """EfficientViT's: the products with a column of ones, divided by it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key = (torch.relu(layer(x)).flatten(2) for layer in (self.query, self.key))
        value = functional.pad(self.value(x).flatten(2), (0, 0, 0, 1), value=1.0)
        found = value @ key.mT @ query
        return x + (found[:, :-1] / (found[:, -1:] + 1e-5)).reshape(x.shape)


class Pyramid(nn.Module):
    """Two scales, linear attention, pooled context, resized and put together: (N, 4, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(6), nn.GELU())
        strided = nn.Conv2d(6, 8, 3, 2, 1)
        self.deep = nn.Sequential(strided, nn.GroupNorm(2, 8), Residual(8, 8), LinearAttention(8))
        self.wide, self.context = nn.Conv2d(6, 8, 1), nn.AdaptiveAvgPool2d(3)
        self.join = nn.Sequential(nn.Conv2d(24, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(4, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        deep, size = self.deep(x), x.shape[2:]
        context = functional.interpolate(self.context(deep), size, mode="bicubic")
        deep = functional.interpolate(deep, size, mode="bilinear", align_corners=True)
        return self.head(self.join(torch.cat([self.wide(x), deep, context], 1)))


def pyramid() -> nn.Module:
    """What segmenters are made of."""
    return settled(Pyramid())


def dense() -> nn.Module:
    """Convolutions of one group: strided, padded, dilated, pointwise."""
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Residual(8)]
    middle = [nn.Conv2d(8, 12, 3, padding=2, dilation=2), nn.SiLU(), SqueezeExcite(12)]
    last = [nn.Conv2d(12, 8, (1, 3), (2, 1)), nn.BatchNorm2d(8), nn.GELU()]
    return settled(nn.Sequential(*stem, *middle, *last, *head(8)))
