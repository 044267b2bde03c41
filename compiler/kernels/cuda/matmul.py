"""Products of two activations outside of fused attention: one thread for an element.

They serve models whose attention is not fused (I-ViT's forms, foreign files).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vitq.compiler.kernels.cuda.arith import Normalize
from vitq.compiler.kernels.cuda.elementwise import each_element
from vitq.compiler.kernels.cuda.emit import (
    Buffer,
    Expr,
    as_word,
    const,
    flat,
    get,
    index,
    put,
    registers,
    serial,
    wide,
)
from vitq.compiler.kernels.cuda.kernel import call_of
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray


def lower_matmul(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.matmul``: a (..., M, K), b (..., N, K), params (a_zp, b_zp) -> int32."""
    return call_of(MATMUL, operands, (0, 1, constants[2].astype(np.int32)), out, features)


def _centred(buffer: Buffer, at: Expr, zero: Expr) -> Expr:
    return buffer[at].astype("int32") - zero


def _matmul_body(
    kernel: Kernel, schedule: Schedule, a: Buffer, b: Buffer, zeros: Buffer, out: Buffer
) -> None:
    rows, inner = kernel.inputs[0].shape[-2:]
    columns = kernel.inputs[1].shape[-2]
    with each_element(kernel.out.size) as at:
        left, right = flat(a), flat(b)
        a_zero, b_zero, total = get(zeros, 0), get(zeros, 1), registers(1)
        put(total, 0, const(0))
        row = index(at // columns * inner)
        column = index((at // (rows * columns) * columns + at % columns) * inner)
        with serial(inner) as k:
            x, y = _centred(left, row + k, a_zero), _centred(right, column + k, b_zero)
            put(total, 0, total[0] + x * y)
        put(flat(out), at, total[0])


def lower_normalized_matmul(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.normalized_matmul``: codes (..., M, N), value (..., N, D), params -> (..., M, D)."""
    params = constants[2].astype(np.int64)
    order = (0, 1, params[:1].astype(np.int32), params[1:].copy())
    return call_of(NORMALIZED_MATMUL, operands, order, out, features)


def _normalized_body(
    kernel: Kernel,
    schedule: Schedule,
    codes: Buffer,
    value: Buffer,
    zero: Buffer,
    norm: Buffer,
    out: Buffer,
) -> None:
    rows, inner = kernel.inputs[0].shape[-2:]
    width = kernel.inputs[1].shape[-1]
    with each_element(kernel.out.size) as at:
        left, right = flat(codes), flat(value)
        normalize, v_zero = Normalize(norm), get(zero, 0)
        acc, total = registers(1), registers(1)
        put(acc, 0, const(0))
        put(total, 0, const(0))
        row = index(at // width * inner)
        base = index(at // (rows * width) * (inner * width) + at % width)
        with serial(inner) as k:
            code = as_word(left[row + k])
            put(acc, 0, acc[0] + code * _centred(right, base + k * width, v_zero))
            put(total, 0, total[0] + code)
        put(flat(out), at, normalize(acc[0], normalize.multiplier(wide(total[0]))))


MATMUL = Template("matmul", _matmul_body)
NORMALIZED_MATMUL = Template("normalized_matmul", _normalized_body)
