"""Mean over the tokens: exact int32 sums for each channel, then one requantization."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitq.compiler.kernels.cpu.arith import clamp
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    cast,
    const,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import Dyadic, addend


def lower_mean(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.mean``: x (B, L, C) over axis 1, params -> (B, C)."""
    multiplier, shift, x_zero, zero, low, high = (int(v) for v in constants[1])
    dyadic = Dyadic(np.array([multiplier], np.int64), np.array([shift], np.int64))
    bias = np.array([-x_zero * operands[0].shape[1]], np.int64)
    add = int(addend(bias, dyadic, zero)[0])
    packed = np.array([multiplier, add, shift, low, high], np.int64)
    inputs = (operands[0], tensor_of(packed))
    return KernelCall(Kernel(MEAN, inputs, out, features), (0, packed))


def _mean_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, result: Buffer
) -> None:
    batch, tokens, channels = kernel.inputs[0].shape

    multiplier, add, shift, low, high = (load(params, i) for i in range(5))
    with parallel(batch) as b:

        def emit(c: Expr, lanes: int) -> None:
            acc = alloc((lanes,), "int32")
            store(acc, const(0, "int32", lanes), 0)
            with serial(tokens) as t:
                value = cast(load(x, b, t, c, lanes=lanes), "int32")
                store(acc, load(acc, 0, lanes=lanes) + value, 0)
            wide = cast(load(acc, 0, lanes=lanes), "int64") * splat(multiplier, lanes)
            moved = (wide + splat(add, lanes)) >> splat(shift, lanes)
            store(result, clamp(moved, low, high), b, c)

        for_chunks(channels, kernel.features.lanes, emit)


MEAN = Template("mean", _mean_body)
