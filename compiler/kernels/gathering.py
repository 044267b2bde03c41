"""A layer's kernel whose left operand's rows are read through a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitq.compiler.kernels.kernel import KernelCall, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.numerics.arrays import IntArray

Lower = Callable[[Sequence[TensorType], Mapping[int, IntArray], TensorType, Any], KernelCall]
"""Gives a layer's kernel from operands, constants, the result's type and features."""


def gathered(
    template: Template,
    lower: Lower,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: Any,
) -> KernelCall:
    """Make the kernel; the table is the last of its inputs.

    Args:
        template: of the layer with a table.
        lower: of the layer without.
        operands: x (B, R, K), rows (M,), then the layer's.
        constants: by operand.
        out: type of the result.
        features: of the processor.
    """
    rows = constants[1].astype(np.int32)
    layer = {i - 1 if i else i: value for i, value in constants.items() if i != 1}
    call = lower([operands[0], *operands[2:]], layer, out, features)
    order = [o + 1 if isinstance(o, int) and o else o for o in call.operands]
    inputs = (*call.kernel.inputs, tensor_of(rows))
    return KernelCall(replace(call.kernel, template=template, inputs=inputs), (*order, rows))
