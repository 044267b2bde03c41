"""Where an element of a broadcast operand lies."""

from collections.abc import Callable
from typing import Any

from vitq.numerics.errors import VitqError

Expr = Any


def broadcast_index(
    name: str, shape: tuple[int, ...], other: tuple[int, ...]
) -> Callable[[Expr], Expr]:
    """From a flat index of `shape` to that of a tensor that broadcasts to it.

    Args:
        name: of the operator, for the message.
        shape: of the result.
        other: of the operand.

    Raises:
        VitqError: if it does not broadcast.
    """
    padded = (1,) * (len(shape) - len(other)) + other
    if len(padded) != len(shape) or any(
        o not in (1, s) for o, s in zip(padded, shape, strict=True)
    ):
        raise VitqError(f"{name}: {other} does not broadcast to {shape}")

    def place(at: Expr) -> Expr:
        result, inner, stride = at * 0, 1, 1
        for extent, own in zip(reversed(shape), reversed(padded), strict=True):
            if own > 1:
                result = result + at // inner % extent * stride
                stride *= own
            inner *= extent
        return result

    return place
