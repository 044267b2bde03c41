"""What the integer reference computes with."""

from dataclasses import dataclass

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError


@dataclass
class IntTensor:
    """Integer codes and their meaning.

    Attributes:
        codes: any shape, int64.
        scale: () float64, or broadcast to the shape of `codes` for accumulators.
        zero_point: of the codes; 0 for accumulators.
    """

    codes: IntArray
    scale: FloatArray
    zero_point: int = 0

    @property
    def real(self) -> FloatArray:
        """What the codes stand for, float32."""
        found: FloatArray = ((self.codes - self.zero_point) * self.scale).astype(np.float32)
        return found

    @property
    def one_scale(self) -> float:
        """The scale as one number, where the operator needs that."""
        first = float(self.scale.flat[0])
        if self.scale.ndim and not np.all(self.scale == first):
            raise VitqError("an operator reads an accumulator with a scale for each channel")
        return first
