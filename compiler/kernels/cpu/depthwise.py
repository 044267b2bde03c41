"""Depthwise convolution: each channel's taps, vectorized over channels.

A difference of codes and its product with a weight fit 16-bit lanes (`numerics.convolution`), so
that a tap is one 16-bit subtraction and multiplication, and one addition in 32 bits. There is no
dot product in it: at one tap for a lane and instruction, the bound is about four instructions for
each 16 taps of AVX-512.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vitq.compiler.kernels.cpu.arith import clamp
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
    when,
)
from vitq.compiler.kernels.cpu.fixed import Longs
from vitq.compiler.kernels.forms.dyadic import rescaled
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import Dyadic, addend

MOST_TOGETHER = 16
"""Positions of one parallel iteration."""


def lower_depthwise(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.depthwise``: x (B, R, C), taps (M, K), weight (C, K), ..., params -> (B, M, C)."""
    taps, weight, bias, multiplier, shift, zero_point, params = (
        constants[i].astype(np.int64) for i in range(1, 8)
    )
    dyadic = Dyadic(multiplier, shift)
    add = addend(bias, dyadic, 0) + (zero_point << shift)
    packed = (
        taps.astype(np.int32),
        np.ascontiguousarray(weight.T).astype(np.int16),
        multiplier,
        add,
        shift,
        params,
    )
    inputs = (operands[0], *(tensor_of(array) for array in packed))
    return KernelCall(Kernel(DEPTHWISE, inputs, out, features), (0, *packed))


def _body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    taps: Buffer,
    weight: Buffer,
    multiplier: Buffer,
    add: Buffer,
    shift: Buffer,
    params: Buffer,
    result: Buffer,
) -> None:
    batch, positions, channels = kernel.out.shape
    count = kernel.inputs[1].shape[1]
    zero = bind(cast(load(params, 0), "int16"))
    low, high = load(params, 1), load(params, 2)
    together = max(n for n in range(1, MOST_TOGETHER + 1) if positions % n == 0)
    blocks = positions // together
    with parallel(batch * blocks) as block, serial(together) as i:
        picture = bind(block // blocks)
        at = bind(block % blocks * together + i)

        def emit(c: Expr, lanes: int) -> None:
            acc = alloc((lanes,), "int32")
            store(acc, const(0, "int32", lanes), 0)
            with serial(count) as k:
                row = bind(load(taps, at, k))
                with when(row >= 0):
                    code = cast(load(x, picture, row, c, lanes=lanes), "int16")
                    product = (code - splat(zero, lanes)) * load(weight, k, c, lanes=lanes)
                    store(acc, load(acc, 0, lanes=lanes) + cast(product, "int32"), 0)
            wide = cast(load(acc, 0, lanes=lanes), "int64")
            m, b, s = (load(part, c, lanes=lanes) for part in (multiplier, add, shift))
            store(result, clamp(rescaled(Longs(), wide, m, b, s), low, high), picture, at, c)

        for_chunks(channels, kernel.features.lanes, emit)


DEPTHWISE = Template("depthwise", _body)
