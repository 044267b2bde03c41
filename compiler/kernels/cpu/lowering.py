"""CPU kernels of the ``vitq`` dialect as TIR PrimFuncs, bit-exact against `numerics`.

`lower_op` gives the kernel of one operator call. Kernels depend on shapes, storage types and
processor features only: everything numeric travels as tensors, so that layers of one shape share
a kernel.
"""

from collections.abc import Callable, Mapping, Sequence

from vitq.compiler.kernels.cpu import pointwise
from vitq.compiler.kernels.cpu.argmax import lower_argmax
from vitq.compiler.kernels.cpu.attention import lower_attention, lower_offset_attention
from vitq.compiler.kernels.cpu.depthwise import lower_depthwise
from vitq.compiler.kernels.cpu.elementwise import lower_add, lower_requantize
from vitq.compiler.kernels.cpu.gemm import (
    lower_gather_linear,
    lower_gather_linear_add,
    lower_linear,
    lower_linear_add,
    lower_linear_gelu,
    lower_patch_embed,
)
from vitq.compiler.kernels.cpu.ivit import lower_ivit_shiftgelu, lower_ivit_shiftmax
from vitq.compiler.kernels.cpu.layernorm import lower_layernorm, lower_rmsnorm
from vitq.compiler.kernels.cpu.matmul import lower_matmul, lower_normalized_matmul
from vitq.compiler.kernels.cpu.multiply import lower_multiply, lower_multiply_add
from vitq.compiler.kernels.cpu.offset import lower_offset
from vitq.compiler.kernels.cpu.pooling import lower_mean
from vitq.compiler.kernels.cpu.rows import lower_gather_rows
from vitq.compiler.kernels.cpu.shiftgelu import lower_shiftgelu
from vitq.compiler.kernels.cpu.softmax import lower_shiftmax, lower_shiftmax_codes
from vitq.compiler.kernels.cpu.table import lower_lut
from vitq.compiler.kernels.kernel import KernelCall, lowering_of
from vitq.compiler.kernels.pointwise import pointwise_operators
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect import names

__all__ = ["CpuFeatures", "KernelCall", "TensorType", "lower_op", "supported_ops"]

Lowering = Callable[
    [Sequence[TensorType], Mapping[int, IntArray], TensorType, CpuFeatures], KernelCall
]

_LOWERINGS: dict[str, Lowering] = {
    **{name: pointwise.lowering_of(found) for name, found in pointwise_operators().items()},
    names.ADD: lower_add,
    names.ARGMAX: lower_argmax,
    names.ATTENTION: lower_attention,
    names.DEPTHWISE: lower_depthwise,
    names.GATHER_LINEAR: lower_gather_linear,
    names.GATHER_LINEAR_ADD: lower_gather_linear_add,
    names.GATHER_ROWS: lower_gather_rows,
    names.IVIT_SHIFTGELU: lower_ivit_shiftgelu,
    names.IVIT_SHIFTMAX: lower_ivit_shiftmax,
    names.LAYERNORM: lower_layernorm,
    names.LINEAR: lower_linear,
    names.LINEAR_ADD: lower_linear_add,
    names.LINEAR_GELU: lower_linear_gelu,
    names.LUT: lower_lut,
    names.MATMUL: lower_matmul,
    names.MEAN: lower_mean,
    names.MULTIPLY: lower_multiply,
    names.MULTIPLY_ADD: lower_multiply_add,
    names.NORMALIZED_MATMUL: lower_normalized_matmul,
    names.OFFSET: lower_offset,
    names.OFFSET_ATTENTION: lower_offset_attention,
    names.PATCH_EMBED: lower_patch_embed,
    names.REQUANTIZE: lower_requantize,
    names.RMSNORM: lower_rmsnorm,
    names.SHIFTGELU: lower_shiftgelu,
    names.SHIFTMAX: lower_shiftmax,
    names.SHIFTMAX_CODES: lower_shiftmax_codes,
}
"""By operator; a pointwise one without an entry of its own is a table of its results."""


def supported_ops() -> tuple[str, ...]:
    """Names of the operators that `lower_op` accepts."""
    return tuple(_LOWERINGS)


def lower_op(
    op: str,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """Return the kernel of one operator call.

    Args:
        op: a name of `supported_ops`.
        operands: types of all operands, constants included.
        constants: values of the operands known at compile time, by index.
        out: type of the result.
        features: of the processor.

    Returns:
        The kernel and what it is called with.

    Raises:
        VitqError: for an operator without a kernel.
    """
    return lowering_of(_LOWERINGS, op, "kernel")(operands, constants, out, features)
