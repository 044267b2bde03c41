"""`compiler.kernels.kernel` for GPUs: the same kernels, calls and templates, other features."""

from collections.abc import Sequence
from typing import Any, cast

from vitq.compiler.kernels.kernel import Kernel, KernelCall, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures, GpuFeatures
from vitq.numerics.arrays import IntArray


def call_of(
    template: Template,
    operands: Sequence[TensorType],
    order: tuple[int | IntArray, ...],
    out: TensorType,
    features: GpuFeatures,
    spec: Any = None,
) -> KernelCall:
    """Make a kernel and what it is called with.

    Args:
        template: of the kernel.
        operands: types of the operator's operands.
        order: for each input of the kernel an operand's index, or a new constant.
        out: type of the result.
        features: of the GPU.
        spec: static facts.
    """
    inputs = tuple(operands[o] if isinstance(o, int) else tensor_of(o) for o in order)
    kernel = Kernel(template, inputs, out, cast(CpuFeatures, features), spec)
    return KernelCall(kernel, order)


def gpu_of(kernel: Kernel) -> GpuFeatures:
    """Return the features of a kernel that `call_of` made."""
    return cast(GpuFeatures, kernel.features)
