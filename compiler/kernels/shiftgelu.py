"""ShiftGELU: `numerics.shiftgelu` elementwise, int32 lanes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from compiler.kernels.arith import clamp, exp2_fraction, horner, mulhrs, rounding_shift
from compiler.kernels.builder import (
    Buffer,
    Expr,
    bind,
    build,
    cast,
    const,
    lanes_of,
    load,
    splat,
    store,
    view,
)
from compiler.kernels.dot import dot_for
from compiler.kernels.elementwise import for_flat, scalars
from compiler.kernels.scaling import Rescale, rescale_constants
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.shiftgelu import EXPONENT_COEFFICIENTS, TAIL_LIMIT


def lower_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftgelu``: x, params."""
    params = [int(v) for v in constants[1]]
    rescale = rescale_constants(params[1], params[2], TAIL_LIMIT)
    rest = np.array([params[0], *params[3:]], np.int64)
    inputs = (operands[0], tensor_of(rescale), tensor_of(rest))
    return KernelCall(_gelu_kernel(inputs, out, features), (0, rescale, rest))


@functools.cache
def _gelu_kernel(inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures) -> Any:
    x_type = inputs[0]

    def body(x: Buffer, rescale: Buffer, params: Buffer, result: Buffer) -> None:
        source, target = view(x, x_type.flat), view(result, out.flat)
        to_tail = Rescale(rescale, dot_for(features).split)
        x_zero, linear, tail, shift, zero, low, high = scalars(params, 7)
        half = bind(1 << (shift - 1))

        def emit(i: Expr, lanes: int) -> None:
            codes = cast(load(source, i, lanes=lanes), "int32")
            centred = bind(codes - splat(x_zero, lanes))
            none = const(0, "int32", lanes)
            v = to_tail(bind(tirx.max(centred, none - centred)))
            total = tirx.max(centred, none) * splat(linear, lanes)
            total = total - emit_tail(v) * splat(tail, lanes)
            rounded = (total + splat(half, lanes)) >> splat(shift, lanes)
            store(target, clamp(rounded + splat(zero, lanes), low, high), i)

        for_flat(x_type.size, features.lanes, emit)

    return build("shiftgelu", inputs, out, body)


def emit_tail(v: Expr) -> Expr:
    """`numerics.shiftgelu.shiftgelu_tail` on int32 lanes."""
    lanes = lanes_of(v)
    g = horner(EXPONENT_COEFFICIENTS, v)
    n = bind(g >> const(11, "int32", lanes))
    y = exp2_fraction(bind((g & const(2047, "int32", lanes)) << const(4, "int32", lanes)))
    return mulhrs(v, rounding_shift(y, n))
