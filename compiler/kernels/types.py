"""What a kernel is asked for and what it returns."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from compiler.features import CpuFeatures
from numerics.arrays import IntArray

__all__ = ["CpuFeatures", "KernelCall", "TensorType", "tensor_of"]


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


@dataclass(frozen=True)
class KernelCall:
    """A kernel and the tensors it takes before its output.

    Attributes:
        func: the PrimFunc; its last buffer is the output (destination passing).
        operands: for each input buffer the index of an original operand, or a new constant.
    """

    func: Any
    operands: tuple[int | IntArray, ...]


def tensor_of(array: IntArray) -> TensorType:
    """The type of a constant."""
    return TensorType(tuple(array.shape), str(np.asarray(array).dtype))
