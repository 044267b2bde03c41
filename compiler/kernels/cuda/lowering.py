"""CUDA kernels of the ``vitq`` dialect as TIR, bit-exact against `numerics`.

They stand beside `compiler.kernels.cpu.lowering` and have the same form: a `Template` emits what
one thread does, `lower_op` gives the kernel of one operator call.
"""

from collections.abc import Callable, Mapping, Sequence

from vitq.compiler.kernels.cuda.attention import lower_attention
from vitq.compiler.kernels.cuda.elementwise import (
    lower_add,
    lower_lut,
    lower_mean,
    lower_requantize,
    lower_shiftgelu,
)
from vitq.compiler.kernels.cuda.gemm import (
    lower_linear,
    lower_linear_add,
    lower_linear_gelu,
    lower_patch_embed,
)
from vitq.compiler.kernels.cuda.layernorm import lower_layernorm
from vitq.compiler.kernels.cuda.matmul import lower_matmul, lower_normalized_matmul
from vitq.compiler.kernels.cuda.softmax import (
    lower_ivit_shiftgelu,
    lower_ivit_shiftmax,
    lower_shiftmax,
    lower_shiftmax_codes,
)
from vitq.compiler.kernels.kernel import KernelCall, lowering_of
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray

__all__ = ["GpuFeatures", "lower_op", "supported_ops"]

Lowering = Callable[
    [Sequence[TensorType], Mapping[int, IntArray], TensorType, GpuFeatures], KernelCall
]

_LOWERINGS: dict[str, Lowering] = {
    "vitq.add": lower_add,
    "vitq.attention": lower_attention,
    "vitq.ivit_shiftgelu": lower_ivit_shiftgelu,
    "vitq.ivit_shiftmax": lower_ivit_shiftmax,
    "vitq.layernorm": lower_layernorm,
    "vitq.linear": lower_linear,
    "vitq.linear_add": lower_linear_add,
    "vitq.linear_gelu": lower_linear_gelu,
    "vitq.lut": lower_lut,
    "vitq.matmul": lower_matmul,
    "vitq.mean": lower_mean,
    "vitq.normalized_matmul": lower_normalized_matmul,
    "vitq.patch_embed": lower_patch_embed,
    "vitq.requantize": lower_requantize,
    "vitq.shiftgelu": lower_shiftgelu,
    "vitq.shiftmax": lower_shiftmax,
    "vitq.shiftmax_codes": lower_shiftmax_codes,
}


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
    """The kernel of one operator call; see `compiler.kernels.cpu.lowering.lower_op`.

    Raises:
        VitqError: for an operator without a kernel.
    """
    return lowering_of(_LOWERINGS, op, "CUDA kernel")(operands, constants, out, features)
