"""What passes read from Relax expressions: shapes, constants, quantizers. No rewriting here."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.qparams import PerAxis, PerTensor, QuantParams
from vitq.relay_passes.dialect.names import DEQUANTIZE, QUANTIZE
from vitq.relay_passes.expressions import (
    Expr,
    constant,
    dtype_of,
    is_constant,
    normalize_axis,
    op_name,
    shape_of,
)

QUANTIZERS = ("relax.quantize", QUANTIZE)
DEQUANTIZERS = ("relax.dequantize", DEQUANTIZE)


@dataclass(frozen=True)
class Codes:
    """A float tensor that is ``scale * (codes - zero_point)``.

    Attributes:
        codes: the integer tensor.
        scale: () or (C,) float64: the file's float32 values, or a product of such values.
        zero_point: the same shape, int64.
        axis: of `codes` along which a (C,) scale lies; None for one scale.
    """

    codes: Expr
    scale: FloatArray
    zero_point: IntArray
    axis: int | None

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale and one zero point hold for all codes."""
        return self.axis is None

    @property
    def array(self) -> IntArray | None:
        """The codes where they are constant."""
        return self.codes.value.numpy() if is_constant(self.codes) else None

    def broadcast(self, values: Any) -> Any:
        """`scale` or `zero_point`, shaped to broadcast against the codes."""
        if self.axis is None:
            return values
        dims = [1] * len(shape_of(self.codes))
        dims[self.axis] = -1
        return values.reshape(dims)

    def real(self) -> FloatArray:
        """Return the real values of constant codes, float64."""
        array = self.array
        assert array is not None, "only constant codes have values at compile time"
        centred = array.astype(np.float64) - self.broadcast(self.zero_point)
        return np.asarray(centred * self.broadcast(self.scale), np.float64)


@dataclass(frozen=True)
class Quantizer:
    """A ``R.quantize`` or ``vitq.quantize`` call.

    Attributes:
        data: the float tensor.
        qparams: scale, zero point, and the bounds of the storage type.
        dtype: the codes' storage type.
    """

    data: Expr
    qparams: QuantParams
    dtype: str

    @property
    def is_per_tensor(self) -> bool:
        """Whether one scale and one zero point hold for all codes."""
        return isinstance(self.qparams.granularity, PerTensor)

    @property
    def axis(self) -> int | None:
        """The axis of a per-channel quantizer, None for one scale."""
        granularity = self.qparams.granularity
        return granularity.axis if isinstance(granularity, PerAxis) else None


def _axis_parameters(
    call: Expr, scale: Any, zero_point: Any
) -> tuple[FloatArray, IntArray, int | None] | None:
    """Scale and zero point, () or (C,), and their axis; None where they are not constant."""
    if not (is_constant(scale) and is_constant(zero_point)):
        return None
    scales, zeros = scale.value.numpy(), zero_point.value.numpy().astype(np.int64)
    if scales.size == 1 and zeros.size == 1:
        return scales.reshape(()), zeros.reshape(()), None
    rank = len(shape_of(call.args[0]))
    zeros = np.broadcast_to(zeros.reshape(-1), scales.shape)
    return scales, zeros, normalize_axis(int(call.attrs.axis), rank)


def read_dequantize(call: Expr) -> Codes | None:
    """Read ``R.dequantize`` or ``vitq.dequantize`` with constant parameters.

    Args:
        call: any expression.

    Returns:
        The codes and their meaning; None for anything else.
    """
    name = op_name(call)
    if name == DEQUANTIZE:
        codes, scale, zero_point, axis = call.args[1:]
        where = int(axis.value.numpy())
        return Codes(
            codes,
            scale.value.numpy(),
            zero_point.value.numpy(),
            None if where < 0 else where,
        )
    if name != "relax.dequantize":
        return None
    found = _axis_parameters(call, call.args[1], call.args[2])
    if found is None:
        return None
    scale, zero_point, axis = found
    return Codes(call.args[0], scale.astype(np.float64), zero_point, axis)


def real_constant(definition: Expr) -> FloatArray | None:
    """Return the real values of a float constant or of dequantized constant codes, float64."""
    if is_constant(definition):
        return np.asarray(definition.value.numpy(), np.float64)
    codes = read_dequantize(definition)
    return codes.real() if codes is not None and codes.array is not None else None


def read_quantize(call: Expr) -> Quantizer | None:
    """Read ``R.quantize`` or ``vitq.quantize`` with constant parameters; None for anything else."""
    if op_name(call) == QUANTIZE:
        data, scale, zero_point, axis, bounds = call.args[1:]
        low, high = (int(bound) for bound in bounds.value.numpy())
        where = int(axis.value.numpy())
        granularity = PerTensor() if where < 0 else PerAxis(where)
        arrays = scale.value.numpy(), zero_point.value.numpy()
        return Quantizer(data, QuantParams(*arrays, low, high, granularity), dtype_of(call))
    if op_name(call) != "relax.quantize":
        return None
    found = _axis_parameters(call, call.args[1], call.args[2])
    if found is None:
        return None
    scale, zero_point, axis = found
    dtype = str(call.attrs.out_dtype)
    info = np.iinfo(dtype)
    granularity = PerTensor() if axis is None else PerAxis(axis)
    qparams = QuantParams(scale, zero_point, int(info.min), int(info.max), granularity)
    return Quantizer(call.args[0], qparams, dtype)


def quantize_call(data: Expr, qparams: QuantParams, dtype: str) -> Expr:
    """``R.quantize``; ``vitq.quantize`` where the bounds are narrower than the storage type."""
    axis = qparams.granularity.axis if isinstance(qparams.granularity, PerAxis) else -1
    info = np.iinfo(dtype)
    zero_point = constant(qparams.zero_point.astype(dtype))
    if (qparams.qmin, qparams.qmax) == (info.min, info.max):
        scale = constant(qparams.scale)
        return relax.op.quantize(data, scale, zero_point, axis=axis, out_dtype=dtype)
    return relax.call_pure_packed(
        QUANTIZE,
        data,
        constant(qparams.scale),
        zero_point,
        constant(np.asarray(axis, np.int64)),
        constant(np.array([qparams.qmin, qparams.qmax], np.int64)),
        ty_args=relax.TensorType(list(shape_of(data)), dtype),
    )
