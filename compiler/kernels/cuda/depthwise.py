"""Depthwise convolution: one thread for each result, plain."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitq.compiler.kernels.cuda.arith import rescaled
from vitq.compiler.kernels.cuda.elementwise import each_element
from vitq.compiler.kernels.cuda.emit import (
    Buffer,
    as_word,
    clamp,
    const,
    flat,
    get,
    index,
    keep,
    put,
    registers,
    select,
    serial,
    wide,
)
from vitq.compiler.kernels.cuda.kernel import call_of
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray


def lower_depthwise(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.depthwise``: x (B, R, C), taps (M, K), weight (C, K), ..., params -> (B, M, C)."""
    weight = np.ascontiguousarray(constants[2].T).astype(np.int8)
    layer = np.stack([constants[i].astype(np.int64) for i in range(3, 7)])
    params = constants[7].astype(np.int64)
    return call_of(DEPTHWISE, operands, (0, 1, weight, layer, params), out, features)


def _body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    taps: Buffer,
    weight: Buffer,
    layer: Buffer,
    params: Buffer,
    out: Buffer,
) -> None:
    _, rows, channels = kernel.inputs[0].shape
    positions, count = kernel.inputs[1].shape
    with each_element(kernel.out.size) as at:
        zero, low, high = (get(params, i) for i in range(3))
        channel = index(at % channels)
        position = index(at // channels % positions)
        first = index(at // (channels * positions) * rows)
        total = registers(1)
        put(total, 0, const(0))
        with serial(count) as k:
            row = as_word(flat(taps)[index(position * count + k)])
            inside = row >= const(0)
            code = as_word(
                flat(x)[index((first + select(inside, row, const(0))) * channels + channel)]
            )
            factor = as_word(flat(weight)[index(k * channels + channel)])
            centred = code - as_word(zero)
            put(total, 0, total[0] + select(inside, centred * factor, const(0)))
        bias, m, s, zero_point = (get(flat(layer), index(i * channels + channel)) for i in range(4))
        half = keep(const(1, "int64") << (s - const(1, "int64")))
        acc = keep(wide(total[0]) + bias)
        put(flat(out), at, clamp(rescaled(acc, m, half, s) + zero_point, low, high))


DEPTHWISE = Template("depthwise", _body)
