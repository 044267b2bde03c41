"""What a model returns, as the one tensor of logits that every stage works with.

A tensor is taken as it is. Of a dict, a tuple, a dataclass or a Hugging Face ``ModelOutput`` it is
the only tensor inside, or, where there are more, the one called ``logits``. The model itself is
not wrapped: a hook on its call changes the result, so that the names of its weights stay.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

LOGITS = "logits"
LISTED = 8
_HOOKED = "_vitq_returns_one_tensor"


def return_one_tensor(module: torch.nn.Module) -> torch.nn.Module:
    """Let a model return its logits alone, whatever it packs them in.

    Args:
        module: changed in place; twice is as once.

    Returns:
        The same module.
    """
    if not getattr(module, _HOOKED, False):
        module.register_forward_hook(_unpack)
        setattr(module, _HOOKED, True)
    return module


def _unpack(module: torch.nn.Module, args: Any, result: Any) -> torch.Tensor:
    return one_tensor(result, type(module).__name__)


def one_tensor(result: Any, name: str = "the model") -> torch.Tensor:
    """Find the logits in a result.

    Args:
        result: of a model.
        name: what the model is called in the message.

    Returns:
        The tensor.

    Raises:
        VitqError: no tensor in it, or several of which none is called ``logits``.
    """
    if isinstance(result, torch.Tensor):
        return result
    found = dict(_tensors(result, ""))
    if len(found) == 1:
        return next(iter(found.values()))
    if LOGITS in found:
        others = [key for key in found if key != LOGITS]
        logger.debug("%s: of its results logits is taken, not %s", name, ", ".join(others))
        return found[LOGITS]
    kind = type(result).__name__
    if not found:
        raise VitqError(f"{name} returns {kind} without a tensor: return the logits (N, classes)")
    raise VitqError(
        f"{name} returns {len(found)} tensors ({', '.join(list(found)[:LISTED])}): return the "
        f"logits alone, or call one of them {LOGITS}"
    )


def _tensors(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors inside of a result, by name."""
    if isinstance(value, torch.Tensor):
        yield path, value
    for key, inner in _members(value):
        yield from _tensors(inner, f"{path}.{key}" if path else str(key))


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif hasattr(value, "_fields") and isinstance(value, tuple):
        yield from zip(getattr(value, "_fields", ()), value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)
