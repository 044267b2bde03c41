"""What a kernel is asked for and what it returns."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from numerics.arrays import IntArray

DOT_PRIMITIVES = ("vnni512", "generic")


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
class CpuFeatures:
    """What a kernel template may use of a processor.

    Attributes:
        dot: the 8-bit dot product primitive, one of `DOT_PRIMITIVES`.
        vector_bits: width of one vector register.
    """

    dot: str
    vector_bits: int

    def __post_init__(self) -> None:
        """Refuse what no template knows."""
        if self.dot not in DOT_PRIMITIVES:
            raise ValueError(f"dot primitive {self.dot!r}: choose from {DOT_PRIMITIVES}")
        if self.vector_bits % 128:
            raise ValueError(f"vector registers of {self.vector_bits} bits: a multiple of 128")

    @property
    def lanes(self) -> int:
        """int32 values in one register."""
        return self.vector_bits // 32


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
