"""Linear layers and the patch embedding: int8 products with a fused requantization.

Weights are packed on the host (`Dot.pack`). Bias, rounding, zero points and the primitive's
activation offset fold into one int64 addend for each channel, so that the epilogue is

    out = clamp((acc * multiplier + addend) >> shift)

If every shift is at least 32 the result is the product's high half, shifted by the rest: that form
stays in 32-bit lanes. The patch embedding first gathers each patch into a row (a copy of pixels,
0.15 MB for 224 x 224) and then is a linear layer.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from compiler.kernels.arith import Wide, clamp, load_wide, multiply_add, split_constant
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
    store,
    view,
)
from compiler.kernels.dot import Dot, dot_for
from compiler.kernels.microkernel import (
    Epilogue,
    Product,
    emit_product,
    needs_staging,
    stage_rows,
    store_lanes,
)
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.dyadic import Dyadic, addend

NO_SHIFT = 32
"""Shift of channels that exist only as padding."""


@dataclass(frozen=True)
class EpilogueSpec:
    """What the epilogue's code depends on.

    Attributes:
        high: every shift is at least 32.
        saturate: the bounds are the output type's own.
    """

    high: bool
    saturate: bool


def lower_linear(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.linear``: x (..., K), weight (N, K) -> (..., N)."""
    spec, packed = _prepare(constants, operands[0].dtype, out, dot_for(features))
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    return KernelCall(_linear_kernel(inputs, out, spec, features), (0, *packed))


def lower_patch_embed(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.patch_embed``: pixels (B, Cin, H, W), weight (N, Cin, P, P) -> (B, L, N)."""
    patch = operands[1].shape[-1]
    spec, packed = _prepare(constants, operands[0].dtype, out, dot_for(features))
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    return KernelCall(_patch_kernel(inputs, out, patch, spec, features), (0, *packed))


def _prepare(
    constants: Mapping[int, IntArray], x_dtype: str, out: TensorType, dot: Dot
) -> tuple[EpilogueSpec, tuple[IntArray, ...]]:
    """Pack what the kernel reads: weights, multiplier, addend, shift, bounds."""
    weight, bias, multiplier, shift, zero_point, params = (constants[i] for i in range(1, 7))
    weight = weight.reshape(weight.shape[0], -1)
    offset = dot.a_offset if x_dtype == "int8" else 0
    correction = offset * weight.astype(np.int64).sum(axis=1)
    dyadic = Dyadic(multiplier.astype(np.int64), shift.astype(np.int64))
    add = addend(bias.astype(np.int64) - correction, dyadic, 0)
    add = add + (zero_point.astype(np.int64) << dyadic.shift)
    info = np.iinfo(out.dtype)
    spec = EpilogueSpec(
        bool(np.all(shift >= 32)), (int(params[0]), int(params[1])) == (info.min, info.max)
    )
    moves = _grouped(dyadic.shift, dot, NO_SHIFT)
    return spec, (
        dot.pack(weight),
        split_constant(_grouped(dyadic.multiplier, dot), dot.lanes, dot.split),
        split_constant(_grouped(add, dot), dot.lanes, dot.split),
        (moves - 32).astype(np.int32) if spec.high else split_constant(moves, dot.lanes, dot.split),
        params.astype(np.int64),
    )


def _grouped(values: IntArray, dot: Dot, fill: int = 0) -> IntArray:
    """(N,) as (groups, lanes), padded."""
    groups = dot.groups(values.size)
    padded = np.full(groups * dot.lanes, fill, np.int64)
    padded[: values.size] = values
    return padded.reshape(groups, dot.lanes)


@functools.cache
def _linear_kernel(
    inputs: tuple[TensorType, ...], out: TensorType, spec: EpilogueSpec, features: CpuFeatures
) -> Any:
    x_type = inputs[0]
    rows, inner = x_type.rows.shape
    dot = dot_for(features)

    def body(x: Buffer, *rest: Buffer) -> None:
        flat = view(x, x_type.rows)
        _emit_linear(_staged(flat, x_type.rows, dot), rows, inner, rest, out, spec, dot)

    return build("linear", inputs, out, body)


@functools.cache
def _patch_kernel(
    inputs: tuple[TensorType, ...],
    out: TensorType,
    patch: int,
    spec: EpilogueSpec,
    features: CpuFeatures,
) -> Any:
    dot = dot_for(features)
    batch, channels, height, width = inputs[0].shape
    inner = channels * patch * patch
    rows = batch * (height // patch) * (width // patch)

    def body(pixels: Buffer, *rest: Buffer) -> None:
        gathered = alloc((rows, inner), inputs[0].dtype)
        _emit_gather(pixels, gathered, inputs[0].shape, patch)
        rows_type = TensorType((rows, inner), inputs[0].dtype)
        _emit_linear(_staged(gathered, rows_type, dot), rows, inner, rest, out, spec, dot)

    return build("patch_embed", inputs, out, body)


def _staged(x: Buffer, x_type: TensorType, dot: Dot) -> Buffer:
    rows, inner = x_type.shape
    if not needs_staging(dot, inner, x_type.dtype):
        return x
    return stage_rows(lambda r, i, n: load(x, r, i, lanes=n), rows, inner, x_type.dtype, dot)


def _emit_gather(pixels: Buffer, rows: Buffer, shape: tuple[int, ...], patch: int) -> None:
    """Copy each patch to a row, channels first."""
    batch, channels, height, width = shape
    down, across = height // patch, width // patch
    with parallel(batch * down) as line, serial(channels * patch) as i:
        image, y = bind(line // down), bind(line % down)
        channel, py = bind(i // patch), bind(i % patch)
        with serial(across) as x:

            def copy(px: Expr, lanes: int) -> None:
                value = load(pixels, image, channel, y * patch + py, x * patch + px, lanes=lanes)
                store(rows, value, line * across + x, i * patch + px)

            for_chunks(patch, min(patch, 16), copy)


def _emit_linear(
    x: Buffer,
    rows: int,
    inner: int,
    rest: tuple[Buffer, ...],
    out: TensorType,
    spec: EpilogueSpec,
    dot: Dot,
) -> None:
    packed, multiplier, add, shift, bounds, result = rest
    target = view(result, out.rows)
    low, high = _bounds(bounds, out.dtype, spec)

    def epilogue(valid: int) -> Epilogue:
        def finish(row: Expr, group: Expr, acc: Expr) -> None:
            wide = multiply_add(
                acc,
                load_wide(multiplier, group, dot.lanes, dot.split),
                load_wide(add, group, dot.lanes, dot.split),
                dot.split,
            )
            value = _shifted(wide, shift, group, spec, dot, (low, high))
            store_lanes(target, value, valid, row, group * dot.lanes)

        return finish

    product = Product(dot, x, packed, dot.steps(inner))
    emit_product(product, rows, out.shape[-1], epilogue)


def _shifted(
    wide: Wide, shift: Buffer, group: Expr, spec: EpilogueSpec, dot: Dot, bounds: tuple[Expr, Expr]
) -> Expr:
    if spec.high:
        value = bind(wide.high() >> load(shift, group, 0, lanes=dot.lanes))
        return clamp(value, *(cast(b, "int32") for b in bounds))
    moved = wide.zip(load_wide(shift, group, dot.lanes, dot.split), lambda v, s: v >> s)
    return moved.map(lambda v: clamp(v, *bounds)).low()


def _bounds(bounds: Buffer, dtype: str, spec: EpilogueSpec) -> tuple[Expr, Expr]:
    if spec.saturate:
        info = tirx.min_value(dtype), tirx.max_value(dtype)
        return const(int(info[0]), "int64"), const(int(info[1]), "int64")
    return load(bounds, 0), load(bounds, 1)
