"""Values of a file's graph while it runs in PyTorch: tensors, and what shapes are made of.

    pictures, weights, what is made of them      ``torch.Tensor`` (float32; masks bool)
    shapes, indices, numbers made of sizes       ``np.ndarray`` on the host

A file computes shapes by operators (Shape, Gather, Concat, ...). They run here in NumPy, element by
element, so that a size may also be torch.export's symbol for the number of pictures (dtype object).
"""

from typing import Any

import numpy as np
import torch

from vitq.numerics.errors import VitqError

Host = np.ndarray[Any, Any]
Value = torch.Tensor | Host


def is_host(value: Any) -> bool:
    """Whether a value is on the host."""
    return isinstance(value, np.ndarray)


def sizes_of(tensor: torch.Tensor) -> Host:
    """Return a shape, (rank,), as a host value."""
    found = np.empty(tensor.ndim, dtype=object)
    found[:] = list(tensor.shape)
    return plain(found)


def plain(values: Host) -> Host:
    """Return host values as NumPy's integers where none of them is a symbol."""
    if values.dtype != object:
        return values
    items = values.reshape(-1).tolist()
    if any(isinstance(item, torch.SymInt | torch.SymFloat | torch.SymBool) for item in items):
        return values
    return np.array(items).reshape(values.shape)


def to_tensor(value: Value) -> torch.Tensor:
    """Return a value as a tensor; floats in float32.

    Raises:
        VitqError: it is a size that depends on the number of pictures.
    """
    if isinstance(value, torch.Tensor):
        return value
    if value.dtype == object:
        raise VitqError("a number that depends on the number of pictures is computed with")
    if value.dtype.kind == "f":
        return torch.from_numpy(np.array(value, dtype=np.float32))
    return torch.from_numpy(np.array(value))


def numbers(value: Host) -> list[Any]:
    """Return host values as Python's numbers, sizes as they are."""
    return list(value.reshape(-1).tolist())
