"""Functions of one number that a graph may hold (`OpKind.POINTWISE`), as PyTorch computes them.

GELU is none of them: it is an operator of its own (`OpKind.GELU`).
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.quantization.graph.clamps import ends_of
from vitq.quantization.graph.graph import Node

Function = Callable[[torch.Tensor], torch.Tensor]

QUICK_GELU_FACTOR = 1.702

STEEP = ("reciprocal", "rsqrt")
"""Functions whose error is their input's relative one: it needs many bits."""
FUNCTIONS: dict[str, Function] = {
    "abs": torch.abs,
    "elu": F.elu,
    "exp": torch.exp,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "log_sigmoid": F.logsigmoid,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(QUICK_GELU_FACTOR * x),
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "square": torch.square,
    "tanh": torch.tanh,
}

WITH_PARAMETER: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
}
"""Those that take a number beside; ELU also goes without (1)."""


def apply(node: Node, x: torch.Tensor) -> torch.Tensor:
    """Compute a function.

    Args:
        node: pointwise: a clamp, or of `FUNCTIONS` or `WITH_PARAMETER`.
        x: any shape.

    Returns:
        The shape of `x`.
    """
    ends = ends_of(node)
    if ends is not None:
        return x.clamp(*ends)
    name, parameter = node.attrs["function"], node.attrs.get("parameter")
    return FUNCTIONS[name](x) if parameter is None else WITH_PARAMETER[name](x, parameter)
