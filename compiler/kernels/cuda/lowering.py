"""CUDA kernels of the ``vitq`` dialect as TIR, bit-exact against `numerics`.

They stand beside `compiler.kernels.cpu.lowering` and have the same form: a `Template` emits what
one thread does, `lower_op` gives the kernel of one operator call.
"""

from collections.abc import Callable, Mapping, Sequence

from vitq.compiler.kernels.cuda import pointwise
from vitq.compiler.kernels.cuda.attention import lower_attention, lower_offset_attention
from vitq.compiler.kernels.cuda.depthwise import lower_depthwise
from vitq.compiler.kernels.cuda.elementwise import (
    lower_add,
    lower_argmax,
    lower_gather_rows,
    lower_lut,
    lower_mean,
    lower_multiply,
    lower_multiply_add,
    lower_offset,
    lower_requantize,
    lower_shiftgelu,
)
from vitq.compiler.kernels.cuda.gemm import (
    lower_gather_linear,
    lower_gather_linear_add,
    lower_linear,
    lower_linear_add,
    lower_linear_gelu,
    lower_patch_embed,
)
from vitq.compiler.kernels.cuda.layernorm import lower_layernorm, lower_rmsnorm
from vitq.compiler.kernels.cuda.matmul import lower_matmul, lower_normalized_matmul
from vitq.compiler.kernels.cuda.softmax import (
    lower_ivit_shiftgelu,
    lower_ivit_shiftmax,
    lower_shiftmax,
    lower_shiftmax_codes,
)
from vitq.compiler.kernels.kernel import KernelCall, lowering_of
from vitq.compiler.kernels.pointwise import pointwise_operators
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect import names

__all__ = ["GpuFeatures", "lower_op", "supported_ops"]

Lowering = Callable[
    [Sequence[TensorType], Mapping[int, IntArray], TensorType, GpuFeatures], KernelCall
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
    features: GpuFeatures,
) -> KernelCall:
    """Return the kernel of one operator call; see `compiler.kernels.cpu.lowering.lower_op`.

    Raises:
        VitqError: for an operator without a kernel.
    """
    return lowering_of(_LOWERINGS, op, "CUDA kernel")(operands, constants, out, features)
