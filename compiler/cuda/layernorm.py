"""I-LayerNorm and its requantization: `numerics.int_layernorm`, one warp for a row.

A row stays in registers between its sums and its normalization. Root and reciprocal come from
multiplications (`compiler.kernels.roots`), because a 64-bit division is about a hundred
instructions.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from compiler.cuda import intrinsics
from compiler.cuda.arith import rescaled
from compiler.cuda.codes import load_codes, store_codes
from compiler.cuda.emit import (
    WARP,
    Buffer,
    Expr,
    ceil_div,
    clamp,
    const,
    get,
    index,
    keep,
    launch,
    put,
    registers,
    when,
    wide,
)
from compiler.cuda.kernel import call_of, gpu_of
from compiler.features import GpuFeatures
from compiler.kernels.roots import reciprocal
from compiler.kernels.types import (
    Kernel,
    KernelCall,
    Knob,
    Schedule,
    Template,
    TensorType,
)
from numerics.arrays import IntArray
from numerics.int_layernorm import RECIPROCAL_BITS

RADICAND_BITS = 62
WARP_CHOICES = (1, 2, 4, 8)


def lower_layernorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.layernorm``: x (..., C), multiplier, addend (C,), params."""
    params = constants[3].astype(np.int64)
    return call_of(LAYERNORM, operands, (0, 1, 2, params), out, features)


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    rows = kernel.inputs[0].rows.shape[0]
    processors = gpu_of(kernel).processors
    enough = [warps for warps in WARP_CHOICES if rows // warps >= processors]
    return {"warps": Knob(WARP_CHOICES, max(enough, default=1))}


def run_length(channels: int) -> int:
    """Neighbouring elements of a lane: the most that leave few lanes idle."""
    runs = [run for run in (8, 4, 2) if channels % run == 0]
    busy = [run for run in runs if ceil_div(channels, WARP * run) * WARP * run <= 1.4 * channels]
    return busy[0] if busy else (runs[-1] if runs else 1)


def _body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    multiplier: Buffer,
    addend: Buffer,
    params: Buffer,
    out: Buffer,
) -> None:
    rows, channels = kernel.inputs[0].rows.shape
    warps = schedule["warps"]
    run = run_length(channels)
    with launch((ceil_div(rows, warps),), WARP * warps) as block:
        row = index(block.x * warps + block.warp)
        with when(True if rows % warps == 0 else row < rows):
            lane, base = block.lane, index(row * channels)
            places = [(lane + step * WARP) * run for step in range(ceil_div(channels, WARP * run))]
            loaded = _load(x, base, places, run, channels)
            sums = _sums(loaded)
            scale = _scale(channels, sums, params)
            limits = get(params, 3), get(params, 4)
            for step, place in enumerate(places):
                column = index(place)
                with when(True if (step + 1) * WARP * run <= channels else column < channels):
                    values = [loaded[step * run + i] for i in range(run)]
                    done = _normalize(values, channels, sums[0], scale, limits,
                                      load_codes(multiplier, column, run),
                                      load_codes(addend, column, run))  # fmt: skip
                    store_codes(out, index(base + column), done)


def _load(x: Buffer, base: Expr, places: list[Expr], run: int, channels: int) -> Buffer:
    """A lane's elements; 0 where there are none."""
    values = registers(len(places) * run)
    for step, place in enumerate(places):
        column = index(place)
        if (step + 1) * WARP * run > channels:
            for i in range(run):
                put(values, step * run + i, const(0))
        with when(True if (step + 1) * WARP * run <= channels else column < channels):
            for i, code in enumerate(load_codes(x, index(base + column), run)):
                put(values, step * run + i, code)
    return values


def _sums(values: Buffer) -> tuple[Expr, Expr]:
    """Sum (int32) and sum of squares (int64) of the row, in every lane."""
    total, squares = registers(1), registers(1, "int64")
    put(total, 0, const(0))
    put(squares, 0, const(0, "int64"))
    for i in range(int(values.shape[0])):
        put(total, 0, total[0] + values[i])
        put(squares, 0, squares[0] + wide(values[i]) * wide(values[i]))
    for mask in (16, 8, 4, 2, 1):
        for slot in (total, squares):
            other = keep(intrinsics.shuffle(slot[0], mask))
            put(slot, 0, slot[0] + other)
    return total[0], squares[0]


class _Scale(tuple[Expr, ...]):
    """Reciprocal, rounding constant and shift of a row (int64); shift of its channels."""


def _scale(channels: int, sums: tuple[Expr, Expr], params: Buffer) -> _Scale:
    total, squares = sums
    eps, fraction, shift = (get(params, i) for i in range(3))
    variance = const(channels, "int64") * squares - wide(total) * wide(total)
    variance = keep(variance + eps)
    # (62 - bit length) >> 1, with bit length = 64 - leading zeros
    k = keep((intrinsics.leading_zeros(variance) - const(64 - RADICAND_BITS)) >> const(1))
    radicand = keep(variance << wide(k * const(2)))
    root = reciprocal(radicand, lambda value: const(value, "int64"), keep)
    down = keep(const(RECIPROCAL_BITS, "int64") - wide(k) - fraction)
    half = keep(const(1, "int64") << (down - const(1, "int64")))
    return _Scale((root, half, down, keep(shift.astype("int32"))))


def _normalize(
    values: list[Expr],
    channels: int,
    total: Expr,
    scale: _Scale,
    limits: tuple[Expr, Expr],
    multipliers: list[Expr],
    addends: list[Expr],
) -> list[Expr]:
    """Codes of neighbouring elements."""
    root, half, down, shift = scale
    low, high = (keep(limit.astype("int32")) for limit in limits)
    done = []
    for value, m, b in zip(values, multipliers, addends, strict=True):
        distance = keep(value * const(channels) - total)
        t = keep(rescaled(distance, root, half, down).astype("int32"))
        done.append(clamp(keep((t * m + b) >> shift), low, high))
    return done


LAYERNORM = Template("layernorm", _body, _knobs)
