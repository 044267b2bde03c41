"""Quantization parameters as one value, and quantize / dequantize with them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.rounding import round_float


class QScheme(StrEnum):
    """SYMMETRIC: zero point 0. AFFINE: any zero point in [qmin, qmax]."""

    SYMMETRIC = "symmetric"
    AFFINE = "affine"


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor."""


@dataclass(frozen=True)
class PerAxis:
    """One scale for each index of `axis` (normalized, >= 0)."""

    axis: int

    def __post_init__(self) -> None:
        """Refuse a negative axis: the rank is not known here."""
        if self.axis < 0:
            raise VitqError(f"axis {self.axis} is negative: normalize it to the tensor's rank")


Granularity = PerTensor | PerAxis


@dataclass(frozen=True, eq=False)
class QuantParams:
    """How real values map to integers: ``real = scale * (code - zero_point)``.

    Attributes:
        scale: () or (C,) float32, > 0 and finite.
        zero_point: the same shape, int32, in [qmin, qmax].
        qmin: smallest code, inclusive.
        qmax: largest code, inclusive.
        granularity: `PerTensor` or `PerAxis`.
    """

    scale: FloatArray
    zero_point: IntArray
    qmin: int
    qmax: int
    granularity: Granularity = PerTensor()

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int, qmin: int, qmax: int) -> "QuantParams":
        """Parameters with one scale."""
        return cls(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), qmin, qmax)

    def __post_init__(self) -> None:
        """Normalize dtypes and refuse what cannot be a quantizer."""
        scale = np.asarray(self.scale, np.float32)
        zero_point = np.asarray(self.zero_point, np.int32)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)
        if scale.shape != zero_point.shape:
            raise VitqError(f"scale {scale.shape} and zero point {zero_point.shape} differ")
        if (scale.ndim == 1) != isinstance(self.granularity, PerAxis) or scale.ndim > 1:
            raise VitqError(f"scale of shape {scale.shape} does not fit {self.granularity}")
        if not (np.all(np.isfinite(scale)) and np.all(scale > 0)):
            raise VitqError("a scale is not a positive finite number")
        if self.qmin >= self.qmax:
            raise VitqError(f"qmin {self.qmin} is not below qmax {self.qmax}")
        if np.any(zero_point < self.qmin) or np.any(zero_point > self.qmax):
            raise VitqError("a zero point is outside of [qmin, qmax]")

    @property
    def dtype(self) -> Any:
        """The narrowest NumPy integer type that holds [qmin, qmax]."""
        for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32):
            info = np.iinfo(dtype)
            if info.min <= self.qmin and self.qmax <= info.max:
                return np.dtype(dtype)
        raise VitqError(f"no integer type up to 32 bits holds [{self.qmin}, {self.qmax}]")

    def moved(self, offset: int) -> "QuantParams":
        """Return the same real values with all codes, bounds included, larger by `offset`."""
        zero_point = self.zero_point + offset
        qmin, qmax = self.qmin + offset, self.qmax + offset
        return QuantParams(self.scale, zero_point, qmin, qmax, self.granularity)

    def along(self, ndim: int) -> tuple[FloatArray, IntArray]:
        """Scale and zero point, shaped to broadcast against a tensor of rank `ndim`."""
        if isinstance(self.granularity, PerTensor):
            return self.scale, self.zero_point
        shape = [1] * ndim
        shape[self.granularity.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def bounds(bits: int, signed: bool, narrow: bool = False) -> tuple[int, int]:
    """Inclusive code range of a width.

    Args:
        bits: 2 to 16.
        signed: two's complement or from zero.
        narrow: leave out the most negative code, so that negation cannot overflow.

    Returns:
        (qmin, qmax).
    """
    if not 2 <= bits <= 16:
        raise VitqError(f"{bits} bits are not supported: choose 2 to 16")
    if not signed:
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)) + int(narrow), 2 ** (bits - 1) - 1


def quantize(x: FloatArray, qparams: QuantParams) -> IntArray:
    """ONNX QuantizeLinear: ``clamp(round_half_even(x / scale) + zero_point)``.

    Args:
        x: any shape, finite.
        qparams: per tensor or per axis.

    Returns:
        Codes of ``qparams.dtype``, the shape of `x`.
    """
    x = np.asarray(x, np.float32)
    scale, zero_point = qparams.along(x.ndim)
    codes = round_float(np.clip(x / scale, -(2.0**40), 2.0**40)) + zero_point
    clipped: IntArray = np.clip(codes, qparams.qmin, qparams.qmax).astype(qparams.dtype)
    return clipped


def dequantize(codes: IntArray, qparams: QuantParams) -> FloatArray:
    """ONNX DequantizeLinear: ``(code - zero_point) * scale``, float32."""
    scale, zero_point = qparams.along(np.ndim(codes))
    return ((codes.astype(np.int64) - zero_point) * scale).astype(np.float32)
