"""Small models of every structure that timm's real ones have, and what tests do with them."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from vitq.models.timm_compat import import_timm
from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph

SHAPE = (3, 32, 32)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
DEFAULTS = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 7,
    "mlp_ratio": 2.0,
}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a value that matters: fresh models have zero biases, unit gammas."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=random)
            if value.ndim > 1 and not name.endswith(("pos_embed", "token")):
                value.copy_(noise * value[0].numel() ** -0.5)
            else:
                gamma = value.ndim == 1 and name.endswith("weight")
                value.copy_(0.2 * noise + float(gamma))
    return model.eval()


def vit(**options: Any) -> nn.Module:
    """A timm VisionTransformer; `options` as its own."""
    timm = import_timm()
    return lively(timm.models.vision_transformer.VisionTransformer(**{**DEFAULTS, **options}))


def distilled() -> nn.Module:
    """Two tokens and two heads, whose logits are averaged."""
    timm = import_timm()
    return lively(timm.models.deit.VisionTransformerDistilled(**DEFAULTS))


def unfused() -> nn.Module:
    """Attention spelled out: q * scale, matmul, softmax, matmul."""
    model = vit()
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False  # type: ignore[union-attr]
    return model


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "class_token": vit,
    "mean": lambda: vit(global_pool="avg"),
    "mean_without_class_token": lambda: vit(global_pool="avg", class_token=False),
    "layer_scale": lambda: vit(init_values=0.1),
    "eps": lambda: vit(norm_layer=lambda dim, **_: nn.LayerNorm(dim, eps=1e-2)),
    "qkv_without_bias": lambda: vit(qkv_bias=False),
    "class_token_without_position": lambda: vit(no_embed_class=True),
    "registers": lambda: vit(reg_tokens=2),
    "normalized_query_and_key": lambda: vit(qk_norm=True),
    "norm_before_blocks": lambda: vit(pre_norm=True),
    "tanh_gelu": lambda: vit(act_layer=lambda: nn.GELU(approximate="tanh")),
    "unfused_attention": unfused,
    "distilled": distilled,
}


class Toy(nn.Module):
    """Patches, one residual branch, a head; subclasses replace one part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, 16)
        self.last = nn.Linear(16, 5)
        lively(self)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures to (B, 16, 16)."""
        return self.conv(x).flatten(2).transpose(1, 2)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """A residual branch."""
        return x + self.fc(self.norm(x))

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the first token."""
        return self.last(self.norm(x)[:, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.body(self.tokens(x)))


def toy(**parts: Callable[..., torch.Tensor]) -> Toy:
    """A `Toy` with other methods: ``toy(head=lambda self, x: ...)``."""
    kind = type("ToyVariant", (Toy,), parts)
    model: Toy = kind()
    return model.eval()


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    """Pictures (N, 3, 32, 32) uint8: noise on random levels."""
    random = np.random.RandomState(seed)
    level = random.randint(40, 215, (count, 3, 1, 1))
    noise = random.randint(-40, 41, (count, *SHAPE))
    return torch.from_numpy((level + noise).astype(np.uint8))


def normalized(pictures: torch.Tensor) -> torch.Tensor:
    """What the float model takes."""
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    return (pictures.float() / 255 - mean) / std


def float_logits(model: nn.Module, pictures: torch.Tensor) -> FloatArray:
    """Logits of the float model."""
    with torch.inference_mode():
        logits: FloatArray = model(normalized(pictures)).numpy()
    return logits


@cache
def _traced(variant: str) -> Graph:
    return trace(VARIANTS[variant](), SHAPE)


def traced(variant: str) -> Graph:
    """The float graph of one of `VARIANTS`, a copy that may be edited."""
    return copy.deepcopy(_traced(variant))


def quantize(
    graph: Graph,
    recipe: Recipe | str = "w8a8",
    method: str = "repq",
    calibration: torch.Tensor | None = None,
) -> Graph:
    """Quantize a float graph on random pictures."""
    widths = Recipe.parse(recipe) if isinstance(recipe, str) else recipe
    data = pixels(8, seed=1) if calibration is None else calibration
    return quantize_graph(graph, data, widths, get_method(method), MEAN, STD)


@cache
def quantized(variant: str, recipe: str = "w8a8", method: str = "repq") -> Graph:
    """One of `VARIANTS`, quantized on random pictures; tests must not edit it."""
    return quantize(traced(variant), recipe, method)


def lowest_cosine(a: FloatArray, b: FloatArray) -> float:
    """Smallest cosine of two sets of logits."""
    a, b = (x.astype(np.float64) for x in (a, b))
    products = (a * b).sum(axis=1)
    return float((products / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
