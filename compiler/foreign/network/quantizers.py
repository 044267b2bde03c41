"""Quantizers of constants: a weight that lies in the file as codes."""

import numpy as np
import torch

from vitq.compiler.foreign.network.call import Call, operator
from vitq.numerics.errors import VitqError

NAMES = (
    "QuantizeLinear", "DequantizeLinear", "com.microsoft.QuantizeLinear",
    "com.microsoft.DequantizeLinear",
)  # fmt: skip


@operator(*NAMES)
def of_constants(call: Call) -> torch.Tensor | np.ndarray:
    """Compute codes of a constant, or the values of codes: q = round(x / s) + z, (q - z) s.

    Raises:
        VitqError: of what is in the pictures: such a file is quantized already.
    """
    if 0 not in call.arrays:
        raise VitqError(
            "it is quantized already: vitq compile takes such a file (quantize takes float ones)"
        )
    x, scale = call.arrays[0], call.arrays[1].astype(np.float64)
    zero = call.arrays[2] if call.has(2) else np.zeros(1, np.uint8)
    if call.get("block_size", 0):
        raise VitqError("scales of blocks")
    axis = call.get("axis", 1) % max(x.ndim, 1)
    wide = [-1 if i == axis else 1 for i in range(x.ndim)] if scale.size > 1 else [1] * x.ndim
    scale, offset = scale.reshape(wide), zero.astype(np.float64).reshape(-1)
    offset = offset.reshape(wide) if offset.size > 1 else offset.reshape([1] * x.ndim)
    if call.op.endswith("DequantizeLinear"):
        return ((x.astype(np.float64) - offset) * scale).astype(np.float32)
    bounds = np.iinfo(zero.dtype)
    codes = np.rint(x.astype(np.float64) / scale) + offset
    return np.clip(codes, bounds.min, bounds.max).astype(zero.dtype)
