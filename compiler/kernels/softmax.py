"""Shiftmax rows: unnormalized 8-bit codes, and the normalized form.

A row takes two passes, its maximum and its exponentials; the normalized form a third one that
divides by their sum.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from compiler.kernels.arith import clamp, exp2_fraction, rounding_shift
from compiler.kernels.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    build,
    cast,
    const,
    for_chunks,
    lanes_of,
    load,
    parallel,
    serial,
    splat,
    store,
    view,
)
from compiler.kernels.dot import dot_for
from compiler.kernels.scaling import Rescale, rescale_constants
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.shiftmax import CODE_LIMIT, LOG2_FRACTION_BITS, WIDE_LIMIT

CODE_SHIFT = 7
LOWEST = -(2**30)
"""Below every score; its distance from the largest score is still an int32."""


def lower_shiftmax_codes(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftmax_codes``: x (..., N), params -> u8."""
    rescale = rescale_constants(int(constants[1][0]), int(constants[1][1]), CODE_LIMIT)
    inputs = (operands[0], tensor_of(rescale))
    return KernelCall(_codes_kernel(inputs, out, features), (0, rescale))


@functools.cache
def _codes_kernel(inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures) -> Any:
    rows, columns = inputs[0].rows.shape

    def body(x: Buffer, rescale: Buffer, result: Buffer) -> None:
        source, target = view(x, inputs[0].rows), view(result, out.rows)
        octaves = Rescale(rescale, dot_for(features).split)
        with parallel(rows) as r:
            top = emit_row_maximum(source, r, columns, features.lanes)

            def emit(i: Expr, lanes: int) -> None:
                score = cast(load(source, r, i, lanes=lanes), "int32")
                store(target, emit_codes(splat(top, lanes) - score, octaves), r, i)

            for_chunks(columns, features.lanes, emit)

    return build("shiftmax_codes", inputs, out, body)


def emit_row_maximum(x: Buffer, row: Expr, columns: int, lanes: int) -> Expr:
    """The largest value of a row as an int32 scalar."""
    vector, scalar = alloc((lanes,), "int32"), alloc((1,), "int32")
    lowest = tirx.min_value("int32")
    store(vector, splat(lowest, lanes), 0)
    store(scalar, lowest, 0)

    def update(i: Expr, n: int) -> None:
        acc = scalar if n == 1 else vector
        value = cast(load(x, row, i, lanes=n), "int32")
        store(acc, tirx.max(load(acc, 0, lanes=n), value), 0)

    for_chunks(columns, lanes, update)
    with serial(lanes) as i:
        store(scalar, tirx.max(load(scalar, 0), load(vector, i)), 0)
    return load(scalar, 0)


def _mantissa_and_shift(t: Expr) -> tuple[Expr, Expr]:
    lanes = lanes_of(t)
    mask = const((1 << LOG2_FRACTION_BITS) - 1, "int32", lanes)
    fraction = bind((t & mask) << const(15 - LOG2_FRACTION_BITS, "int32", lanes))
    octave = bind(t >> const(LOG2_FRACTION_BITS, "int32", lanes))
    return exp2_fraction(fraction), octave


def emit_codes(distance: Expr, octaves: Rescale) -> Expr:
    """8-bit exponentials of the negative `distance` (int32 lanes, >= 0)."""
    y, n = _mantissa_and_shift(octaves(bind(distance)))
    return rounding_shift(y, bind(n + const(CODE_SHIFT, "int32", lanes_of(n))))


def lower_shiftmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftmax``: x (..., N), params -> normalized codes."""
    params = constants[1].astype(np.int64)
    rescale = rescale_constants(int(params[0]), int(params[1]), WIDE_LIMIT)
    norm = np.ascontiguousarray(params[2:])
    inputs = (operands[0], tensor_of(rescale), tensor_of(norm))
    return KernelCall(_shiftmax_kernel(inputs, out, features), (0, rescale, norm))


@functools.cache
def _shiftmax_kernel(inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures) -> Any:
    rows, columns = inputs[0].rows.shape

    def body(x: Buffer, rescale: Buffer, norm: Buffer, result: Buffer) -> None:
        source, target = view(x, inputs[0].rows), view(result, out.rows)
        octaves = Rescale(rescale, dot_for(features).split)
        normalize = Normalize(norm)
        with parallel(rows) as r:
            top = emit_row_maximum(source, r, columns, features.lanes)
            wide = alloc((columns,), "int32")

            def emit(i: Expr, lanes: int) -> None:
                score = cast(load(source, r, i, lanes=lanes), "int32")
                y, n = _mantissa_and_shift(octaves(bind(splat(top, lanes) - score)))
                store(wide, rounding_shift(y, n), i)

            for_chunks(columns, features.lanes, emit)
            multiplier = normalize.multiplier(emit_sum(wide, columns, features.lanes))

            def scale(i: Expr, lanes: int) -> None:
                store(target, normalize(load(wide, i, lanes=lanes), multiplier), r, i)

            for_chunks(columns, features.lanes, scale)

    return build("shiftmax", inputs, out, body)


def emit_sum(values: Buffer, columns: int, lanes: int) -> Expr:
    """Sum of an int32 vector, an int32 scalar."""
    vector, scalar = alloc((lanes,), "int32"), alloc((1,), "int32")
    store(vector, const(0, "int32", lanes), 0)
    store(scalar, const(0, "int32"), 0)

    def update(i: Expr, n: int) -> None:
        acc = scalar if n == 1 else vector
        store(acc, load(acc, 0, lanes=n) + load(values, i, lanes=n), 0)

    for_chunks(columns, lanes, update)
    with serial(lanes) as i:
        store(scalar, load(scalar, 0) + load(vector, i), 0)
    return load(scalar, 0)


class Normalize:
    """Emits `numerics.shiftmax.normalize` with parameters read from a buffer."""

    def __init__(self, params: Buffer) -> None:
        """Read int64 (5,) NormalizeParams."""
        self.numerator, self.shift, zero, self.low, self.high = (load(params, i) for i in range(5))
        one = const(1, "int64")
        self.addend = bind((one << (self.shift - 1)) + (zero << self.shift))

    def multiplier(self, total: Expr) -> Expr:
        """``M // total`` for an int32 scalar."""
        return bind(tirx.truncdiv(self.numerator, cast(total, "int64")))

    def __call__(self, acc: Expr, multiplier: Expr) -> Expr:
        """Scale int32 lanes by the row's multiplier, round, move and clamp."""
        lanes = lanes_of(acc)
        product = cast(acc, "int64") * splat(multiplier, lanes) + splat(self.addend, lanes)
        return clamp(product >> splat(self.shift, lanes), self.low, self.high)
