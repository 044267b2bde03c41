"""What a kernel knows of a tensor: its static shape and storage type."""

from dataclasses import dataclass
from math import prod

import numpy as np

from vitq.numerics.arrays import IntArray


@dataclass(frozen=True)
class TensorType:
    """Static shape and storage type of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def flat(self) -> "TensorType":
        """The same elements as one axis."""
        return TensorType((self.size,), self.dtype)

    @property
    def rows(self) -> "TensorType":
        """The same elements as (rows, last axis)."""
        columns = self.shape[-1] if self.shape else 1
        return TensorType((self.size // columns, columns), self.dtype)


def tensor_of(array: IntArray) -> TensorType:
    """Return the type of a constant."""
    return TensorType(tuple(array.shape), str(np.asarray(array).dtype))
