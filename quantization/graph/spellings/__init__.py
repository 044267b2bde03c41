"""What each operator of PyTorch is in the graph; a module for each kind."""

from vitq.quantization.graph.spellings import (
    arithmetic,
    attention,
    convolution,
    indexing,
    layout,
    moments,
    normalizing,
    pointwise,
    pooling,
    products,
)
from vitq.quantization.graph.spellings.registry import spell

__all__ = [
    "arithmetic",
    "attention",
    "convolution",
    "indexing",
    "layout",
    "moments",
    "normalizing",
    "pointwise",
    "pooling",
    "products",
    "spell",
]
