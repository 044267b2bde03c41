"""I-LayerNorm: `numerics.int_layernorm` row by row.

One pass over a row for its sums, scalar work for the root and its reciprocal, one pass that
normalizes: a 64-bit product for each element, brought to a shift of at least 32 so that its high
half is enough, then int32.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import tirx

from compiler.kernels.arith import clamp, multiply_add, wide_splat
from compiler.kernels.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    build,
    cast,
    const,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
    view,
)
from compiler.kernels.dot import dot_for
from compiler.kernels.elementwise import scalars
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType
from numerics.arrays import IntArray
from numerics.int_layernorm import RECIPROCAL_BITS

NEWTON_STEPS = 5
ROOT_BITS = 31


def lower_layernorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.layernorm``: x (..., C), multiplier (C,), addend (C,), params."""
    return KernelCall(_layernorm_kernel(tuple(operands), out, features), (0, 1, 2, 3))


@functools.cache
def _layernorm_kernel(
    inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures
) -> Any:
    x_type = inputs[0].rows
    rows, channels = x_type.shape
    split = dot_for(features).split

    def body(x: Buffer, multiplier: Buffer, add: Buffer, params: Buffer, result: Buffer) -> None:
        source, target = view(x, x_type), view(result, out.rows)
        epsilon = load(params, 0)
        fraction, shift, low, high = scalars(params, 5)[1:]

        with parallel(rows) as r:
            total, squares = _emit_sums(source, r, channels, features.lanes)
            variance = bind(squares * channels - total * total + epsilon)
            reciprocal, moves = _emit_reciprocal(variance)
            # t = (d r + half) >> moves, with d moved up where the shift is under 32.
            moves = bind(moves - cast(fraction, "int64"))
            up = bind(cast(tirx.max(32 - moves, const(0, "int64")), "int32"))
            down = bind(cast(moves, "int32") + up - 32)
            half = bind(const(1, "int64") << (cast(down, "int64") + 31))
            total32 = bind(cast(total, "int32"))

            def emit(i: Expr, lanes: int) -> None:
                d = cast(load(source, r, i, lanes=lanes), "int32") * channels
                d = bind((d - splat(total32, lanes)) << splat(up, lanes))
                wide = multiply_add(
                    d, wide_splat(reciprocal, lanes, split), wide_splat(half, lanes, split), split
                )
                t = wide.high() >> splat(down, lanes)
                scaled = t * load(multiplier, i, lanes=lanes) + load(add, i, lanes=lanes)
                store(target, clamp(scaled >> splat(shift, lanes), low, high), r, i)

            for_chunks(channels, features.lanes, emit)

    return build("layernorm", inputs, out, body)


def _emit_sums(x: Buffer, r: Expr, channels: int, lanes: int) -> tuple[Expr, Expr]:
    """Sum and sum of squares of a row, int64 scalars."""

    def total(term: Callable[[Expr], Expr]) -> Expr:
        vector, scalar = alloc((lanes,), "int64"), alloc((1,), "int64")
        store(vector, const(0, "int64", lanes), 0)
        store(scalar, const(0, "int64"), 0)

        def add(i: Expr, n: int) -> None:
            acc = scalar if n == 1 else vector
            value = term(cast(load(x, r, i, lanes=n), "int64"))
            store(acc, load(acc, 0, lanes=n) + value, 0)

        for_chunks(channels, lanes, add)
        with serial(lanes) as i:
            store(scalar, load(scalar, 0) + load(vector, i), 0)
        return load(scalar, 0)

    return total(lambda v: v), total(lambda v: bind(v) * v)


def _emit_reciprocal(variance: Expr) -> tuple[Expr, Expr]:
    """``(2**61 - 1) // isqrt(V << 2k)`` and ``61 - k``, exactly as the contract's Newton steps."""
    k = bind((cast(tirx.clz(variance), "int64") - 2) >> 1)
    radicand = bind(variance << (2 * k))
    root = bind(const(1 << ROOT_BITS, "int64"))
    for _ in range(NEWTON_STEPS):
        root = bind((root + tirx.truncdiv(radicand, root)) >> 1)
    root = bind(root - cast(root * root > radicand, "int64"))
    reciprocal = tirx.truncdiv(const((1 << RECIPROCAL_BITS) - 1, "int64"), root)
    return bind(reciprocal), bind(RECIPROCAL_BITS - k)
