"""I-LayerNorm and its requantization: `numerics.int_layernorm`, some lanes of a warp for a row.

RMS normalization (`numerics.int_rmsnorm`) is the same with a row sum of 0.

A row stays in registers between its sums and its normalization. Root and reciprocal come from
multiplications (`compiler.kernels.forms.reciprocal`), because a 64-bit division is about a hundred
instructions. They and the sums over lanes are some 240 instructions for a row, and 12 for each of a
lane's elements: a warp with several rows does the former for all of them at once. What is constant
is read while the kernel before still runs.

``t = (d r + half) >> down`` is the upper word of ``(d << up) r + (half << up)`` with ``up = 32 -
down``, shifted by ``down - 32`` where that is positive instead: one multiplication of 32 bits.
``d << up`` fits: ``|t| < 2**15`` and ``r >= 2**30`` give ``|d| < 2**(down - 15)``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import LONGS, WORDS
from vitq.compiler.kernels.cuda.codes import fills, load_codes, store_codes
from vitq.compiler.kernels.cuda.emit import (
    BYTES,
    WARP,
    WORD_BITS,
    WORD_BYTES,
    Buffer,
    Expr,
    Shared,
    address,
    as_word,
    ceil_div,
    clamp,
    const,
    get,
    index,
    keep,
    launch,
    put,
    registers,
    select,
    spread,
    when,
    wide,
)
from vitq.compiler.kernels.cuda.kernel import call_of, gpu_of
from vitq.compiler.kernels.forms.int_layernorm import headroom, variance
from vitq.compiler.kernels.forms.reciprocal import reciprocal
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.int_layernorm import RECIPROCAL_BITS

LOWEST = -(2**31)
EARLY_ELEMENTS = 32
"""Of a lane; with more, their constants have no room in registers."""
ENOUGH_WARPS = 2
"""Of a multiprocessor: with fewer, a row's time is what counts."""
BEST_WARPS = 4
"""Of a block, where there are rows enough."""
WARP_CHOICES, LANES = (1, 2, 4, 8), (8, 16, 32)


def lower_layernorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
    template: Template | None = None,
) -> KernelCall:
    """``vitq.layernorm``: x (..., C), multiplier, addend (C,), params."""
    params = constants[3].astype(np.int64)
    order = (0, constants[1], constants[2], params)
    filled = fills(out.dtype, int(params[3]), int(params[4]))
    return call_of(template or LAYERNORM, operands, order, out, features, filled)


def lower_rmsnorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.rmsnorm``: the operands of ``vitq.layernorm``."""
    return lower_layernorm(operands, constants, out, features, RMSNORM)


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    rows, channels = kernel.inputs[0].rows.shape
    processors = gpu_of(kernel).processors
    few = [lanes for lanes in LANES if channels <= lanes * EARLY_ELEMENTS]
    together = [lanes for lanes in few if rows * lanes // WARP >= ENOUGH_WARPS * processors]
    lanes = min(together, default=WARP)
    most = rows * lanes // (WARP * processors)
    enough = [warps for warps in WARP_CHOICES if warps <= min(most, BEST_WARPS)]
    return {
        "warps": Knob(WARP_CHOICES, max(enough, default=1)),
        "lanes": Knob(LANES, lanes),
    }


def run_length(channels: int, lanes: int) -> int:
    """Neighbouring elements of a lane: the most that leave few lanes idle."""
    runs = [run for run in (8, 4, 2) if channels % run == 0]
    busy = [run for run in runs if ceil_div(channels, lanes * run) * lanes * run <= 1.4 * channels]
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
    warps, lanes = schedule["warps"], schedule["lanes"]
    run, several = run_length(channels, lanes), warps * (WARP // lanes)
    steps = ceil_div(channels, lanes * run)
    saturate = kernel.spec and run * BYTES[kernel.out.dtype] >= WORD_BYTES
    grid = (ceil_div(rows, several),)
    with launch(grid, WARP * warps, early=True) as block:
        size = spread(grid, WARP * warps, gpu_of(kernel))
        if size:
            intrinsics.reserve(address(Shared(size).bytes, 0))
        row = index(block.x * several + block.thread // lanes)
        exists = True if rows % several == 0 else row < rows
        base = index((row if exists is True else tirx.min(row, rows - 1)) * channels)
        lane = index(block.thread % lanes)
        columns = [index((lane + step * lanes) * run) for step in range(steps)]
        inside = [
            True if (step + 1) * lanes * run <= channels else column < channels
            for step, column in enumerate(columns)
        ]
        eps, fraction, shift, low, high = (get(params, i) for i in range(5))
        normalize = _Normalize(channels, saturate, as_word(shift), (low, high))
        early = steps * run <= EARLY_ELEMENTS
        constants = (multiplier, addend)
        if early:
            held = [_load(buffer, 0, columns, inside, run, zeros=False) for buffer in constants]
        intrinsics.await_inputs()
        loaded = _load(x, base, columns, inside, run, zeros=True)
        total, squares = _sums(loaded, lanes)
        total = total if kernel.template is LAYERNORM else const(0)
        normalize.start((total, squares), eps, fraction)
        for step, column in enumerate(columns):
            with when(inside[step]), when(exists):
                places = range(step * run, (step + 1) * run)
                if early:
                    factors, terms = ([some[i] for i in places] for some in held)
                else:
                    factors, terms = (load_codes(some, column, run) for some in constants)
                codes = [
                    normalize(loaded[i], factor, term)
                    for i, factor, term in zip(places, factors, terms, strict=True)
                ]
                store_codes(out, index(base + column), codes, saturate)


def _load(
    buffer: Buffer, base: Expr | int, columns: list[Expr], inside: list[Expr], run: int, zeros: bool
) -> Buffer:
    """Load a lane's elements into registers; with `zeros`, 0 where there are none."""
    values = registers(len(columns) * run)
    for step, column in enumerate(columns):
        if zeros and inside[step] is not True:
            for i in range(run):
                put(values, step * run + i, const(0))
        with when(inside[step]):
            for i, value in enumerate(load_codes(buffer, index(base + column), run)):
                put(values, step * run + i, value)
    return values


def _sums(values: Buffer, lanes: int) -> tuple[Expr, Expr]:
    """Sum (int32) and sum of squares (int64) of the row, in every one of its lanes."""
    total, squares = registers(1), registers(1, "int64")
    put(total, 0, const(0))
    put(squares, 0, const(0, "int64"))
    for i in range(int(values.shape[0])):
        put(total, 0, total[0] + values[i])
        put(squares, 0, squares[0] + wide(values[i]) * wide(values[i]))
    for mask in (mask for mask in (16, 8, 4, 2, 1) if mask < lanes):
        for slot in (total, squares):
            other = keep(intrinsics.shuffle(slot[0], mask))
            put(slot, 0, slot[0] + other)
    return total[0], squares[0]


class _Normalize:
    """Codes of a row's elements.

    Args:
        channels: of the row.
        saturate: whether the codes are clamped where they are packed.
        shift: of all channels.
        limits: of the codes, int64.
    """

    def __init__(
        self, channels: int, saturate: bool, shift: Expr, limits: tuple[Expr, Expr]
    ) -> None:
        self.channels, self.shift = channels, shift
        self.limits = None if saturate else [as_word(limit) for limit in limits]

    def start(self, sums: tuple[Expr, Expr], eps: Expr, fraction: Expr) -> None:
        """Root, reciprocal and shifts of the row.

        Args:
            sums: of the codes, int32, and of their squares, int64.
            eps: int64.
            fraction: bits of a normalized value, int64.
        """
        self.total, squares = sums
        both = variance(LONGS, self.channels, wide(self.total), squares, eps)
        k = headroom(WORDS, intrinsics.leading_zeros(both))
        self.root = as_word(reciprocal(LONGS, keep(both << wide(k * const(2)))))
        more = keep(const(RECIPROCAL_BITS - WORD_BITS) - k - fraction.astype("int32"))
        self.up, self.down = keep(tirx.max(-more, 0)), keep(tirx.max(more, 0))
        self.half_low = keep(select(more > 0, const(0), const(LOWEST)))
        self.half_high = keep((const(1) << self.down) >> const(1))

    def __call__(self, value: Expr, multiplier: Expr, addend: Expr) -> Expr:
        """Code of one element."""
        distance = keep((value * const(self.channels) - self.total) << self.up)
        high = intrinsics.mad_high(distance, self.root, self.half_low, self.half_high)
        t = keep(high >> self.down)
        code = keep((t * multiplier + addend) >> self.shift)
        return code if self.limits is None else clamp(code, *self.limits)


LAYERNORM = Template("layernorm", _body, _knobs)
RMSNORM = Template("rmsnorm", _body, _knobs)
