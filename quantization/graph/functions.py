"""Functions of one number that a graph may hold (`OpKind.POINTWISE`), as PyTorch computes them.

GELU is none of them: it is an operator of its own (`OpKind.GELU`).
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

Function = Callable[[torch.Tensor], torch.Tensor]

QUICK_GELU_FACTOR = 1.702

FUNCTIONS: dict[str, Function] = {
    "abs": torch.abs,
    "elu": F.elu,
    "exp": torch.exp,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(QUICK_GELU_FACTOR * x),
    "relu": F.relu,
    "relu6": F.relu6,
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


def apply(name: str, x: torch.Tensor, parameter: float | None = None) -> torch.Tensor:
    """Compute a function.

    Args:
        name: of `FUNCTIONS` or `WITH_PARAMETER`.
        x: any shape.
        parameter: of those that have one.

    Returns:
        The shape of `x`.
    """
    return FUNCTIONS[name](x) if parameter is None else WITH_PARAMETER[name](x, parameter)
