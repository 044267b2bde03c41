"""Elementwise kernels: residual addition, requantization and table look-up.

Tensors are walked flat in vectors of int32 lanes. `add` is int32 throughout (its multipliers are
made for that); `requantize` multiplies in 64 bits.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.kernels.arith import clamp
from compiler.kernels.builder import (
    Buffer,
    Expr,
    bind,
    build,
    cast,
    for_chunks,
    load,
    parallel,
    splat,
    store,
    view,
)
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.dyadic import Dyadic, addend
from numerics.errors import VitqError

ROW = 4096
"""Elements of one parallel iteration of a flat walk."""


def scalars(params: Buffer, count: int, dtype: str = "int32") -> list[Expr]:
    """Read the first `count` int64 parameters as scalars of `dtype`."""
    return [bind(cast(load(params, i), dtype)) for i in range(count)]


def for_flat(size: int, lanes: int, body: Any) -> None:
    """Walk a flat tensor in parallel blocks of vectors."""
    whole = size // ROW
    if whole:
        with parallel(whole) as block:
            for_chunks(ROW, lanes, body, block * ROW)
    for_chunks(size - whole * ROW, lanes, body, whole * ROW)


def lower_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.add``: a + b with b broadcastable to a."""
    return KernelCall(_add_kernel(tuple(operands), out, features), (0, 1, 2))


def _period(a: TensorType, b: TensorType) -> int:
    """How many trailing elements of `a` all of `b` covers, repeated over the rest."""
    shape = b.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    if shape != a.shape[len(a.shape) - len(shape) :]:
        raise VitqError(
            f"vitq.add: {b.shape} must equal the trailing axes of {a.shape}; broadcast it before"
        )
    return b.size


@functools.cache
def _add_kernel(inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures) -> Any:
    a_type, b_type, _ = inputs
    period = _period(a_type, b_type)
    repeats = a_type.size // period

    def body(a: Buffer, b: Buffer, params: Buffer, result: Buffer) -> None:
        x, y = view(a, a_type.flat), view(b, b_type.flat)
        target = view(result, out.flat)
        za, zb, ma, mb, shift, zero, low, high = scalars(params, 8)
        constant = bind((1 << (shift - 1)) - za * ma - zb * mb)

        def emit(i: Expr, j: Expr, lanes: int) -> None:
            left = cast(load(x, i, lanes=lanes), "int32") * splat(ma, lanes)
            right = cast(load(y, j, lanes=lanes), "int32") * splat(mb, lanes)
            total = (left + right + splat(constant, lanes)) >> splat(shift, lanes)
            store(target, clamp(total + splat(zero, lanes), low, high), i)

        if repeats == 1:
            for_flat(a_type.size, features.lanes, lambda i, n: emit(i, i, n))
            return
        with parallel(repeats) as r:
            for_chunks(period, features.lanes, lambda i, n: emit(r * period + i, i, n))

    return build("add", inputs, out, body)


def lower_requantize(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.requantize``: per tensor or per channel of the last axis."""
    multiplier, shift, params = (constants[i] for i in (1, 2, 3))
    dyadic = Dyadic(multiplier.astype(np.int64), shift.astype(np.int64))
    x_zero, zero, low, high = (int(v) for v in params)
    add = addend(np.full(multiplier.shape, -x_zero, np.int64), dyadic, zero)
    packed = (
        dyadic.multiplier,
        add,
        dyadic.shift,
        np.array([low, high], np.int64),
    )
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    return KernelCall(_requantize_kernel(inputs, out, features), (0, *packed))


@functools.cache
def _requantize_kernel(
    inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures
) -> Any:
    x_type = inputs[0]
    channels = inputs[1].size

    def body(
        x: Buffer, multiplier: Buffer, add: Buffer, shift: Buffer, bounds: Buffer, result: Buffer
    ) -> None:
        period = x_type.shape[-1] if channels > 1 else x_type.size
        rows = x_type.size // period
        source, target = view(x, x_type.flat), view(result, out.flat)
        low, high = load(bounds, 0), load(bounds, 1)

        def emit(r: Expr, i: Expr, lanes: int) -> None:
            at = r * period + i
            m, b, s = (
                load(c, i, lanes=lanes) if channels > 1 else splat(load(c, 0), lanes)
                for c in (multiplier, add, shift)
            )
            wide = (cast(load(source, at, lanes=lanes), "int64") * m + b) >> s
            store(target, clamp(wide, low, high), at)

        if rows == 1:
            for_flat(period, features.lanes, lambda i, n: emit(0, i, n))
            return
        with parallel(rows) as r:
            for_chunks(period, features.lanes, lambda i, n: emit(r, i, n))

    return build("requantize", inputs, out, body)


def lower_lut(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.lut``: x u8 (B, C, H, W), table (C, 256)."""
    return KernelCall(_lut_kernel(tuple(operands), out), (0, 1))


@functools.cache
def _lut_kernel(inputs: tuple[TensorType, ...], out: TensorType) -> Any:
    x_type, table_type = inputs
    channels = table_type.shape[0]
    planes = x_type.shape[0] * channels
    size = x_type.size // planes

    def body(x: Buffer, table: Buffer, result: Buffer) -> None:
        source, target = view(x, x_type.flat), view(result, out.flat)
        with parallel(planes) as plane:
            channel = bind(plane % channels)

            def emit(i: Expr, lanes: int) -> None:
                code = cast(load(source, plane * size + i), "int32")
                store(target, load(table, channel, code), plane * size + i)

            for_chunks(size, 1, emit)

    return build("lut", inputs, out, body)
