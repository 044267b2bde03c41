"""I-LayerNorm: `numerics.int_layernorm` in blocks of `BLOCK` rows.

A block takes three steps: each row's sums and its radicand; the square roots and reciprocals of
all of its rows at once, in int64 lanes; each row's normalization, a 64-bit product for each
element, brought to a shift of at least 32 so that its high half is enough, then int32.

There is no vector division, and a scalar one takes 40 to 90 cycles, six for each row in the
contract's Newton form. Root and reciprocal are therefore found bit by bit (31 compare-and-select
steps for all rows of the block): both are floors, so that every exact method gives the same bits.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import tirx

from compiler.kernels.arith import clamp, multiply_add, wide_factor, wide_splat
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
    reduce_lanes,
    reinterpret,
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

BLOCK = 32
ROOT_BITS = 31
SMALLEST_RADICAND = 1 << 60


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
    rows = x_type.shape[0]

    def body(x: Buffer, multiplier: Buffer, add: Buffer, params: Buffer, result: Buffer) -> None:
        layer = _Layer(
            view(x, x_type),
            x_type.shape[1],
            multiplier,
            add,
            params,
            view(result, out.rows),
            features,
        )
        if rows // BLOCK:
            with parallel(rows // BLOCK) as i:
                layer.emit_block(i * BLOCK, BLOCK)
        if rows % BLOCK:
            layer.emit_block(rows - rows % BLOCK, rows % BLOCK)

    return build("layernorm", inputs, out, body)


class _Layer:
    """The buffers and scalars of one call."""

    def __init__(
        self,
        x: Buffer,
        channels: int,
        multiplier: Buffer,
        add: Buffer,
        params: Buffer,
        out: Buffer,
        features: CpuFeatures,
    ) -> None:
        """Read the parameters.

        Args:
            x: (rows, channels).
            channels: C.
            multiplier: (C,) int32.
            add: (C,) int32.
            params: int64 (5,) of `LayerNormParams.scalars`.
            out: (rows, channels).
            features: of the processor.
        """
        self.x, self.channels, self.out = x, channels, out
        self.multiplier, self.add = multiplier, add
        self.epsilon = load(params, 0)
        self.fraction, self.shift, self.low, self.high = scalars(params, 5)[1:]
        self.lanes, self.split = features.lanes, dot_for(features).split

    def emit_block(self, first: Expr, rows: int) -> None:
        """Normalize up to `BLOCK` rows."""
        totals, moves = alloc((BLOCK,), "int32"), alloc((BLOCK,), "int32")
        radicands, reciprocals = alloc((BLOCK,), "int64"), alloc((BLOCK,), "int32")
        for r in range(rows, BLOCK):
            store(radicands, const(SMALLEST_RADICAND, "int64"), r)
        with serial(rows) as r:
            total, squares = self._sums(first + r)
            total64 = bind(cast(total, "int64"))
            variance = bind(squares * self.channels - total64 * total64 + self.epsilon)
            k = bind((cast(tirx.clz(variance), "int32") - 2) >> 1)
            store(totals, total, r)
            store(radicands, variance << cast(2 * k, "int64"), r)
            store(moves, RECIPROCAL_BITS - k - self.fraction, r)
        emit_reciprocals(radicands, reciprocals)
        with serial(rows) as r:
            self._normalize(first + r, load(totals, r), load(reciprocals, r), load(moves, r))

    def _sums(self, row: Expr) -> tuple[Expr, Expr]:
        """Sum (int32) and sum of squares (int64) of a row; a square is an unsigned 32-bit value."""
        lanes, half = self.lanes, self.lanes // 2
        totals = {n: zeros(n, "int32") for n in (1, lanes)}
        single = zeros(1, "int64")
        even, odd = zeros(half, "int64"), zeros(half, "int64")

        def add(i: Expr, n: int) -> None:
            value = bind(cast(load(self.x, row, i, lanes=n), "int32"))
            accumulate(totals[n], value)
            if n == 1:
                accumulate(single, cast(cast(value * value, "uint32"), "int64"))
                return
            pairs = bind(reinterpret(bind(value * value), f"uint64x{half}"))
            accumulate(even, cast(pairs & const(0xFFFFFFFF, "uint64", half), "int64"))
            accumulate(odd, cast(pairs >> const(32, "uint64", half), "int64"))

        for_chunks(self.channels, lanes, add)
        total = load(totals[1], 0) + reduce_lanes(load(totals[lanes], 0, lanes=lanes), "add")
        both = bind(load(even, 0, lanes=half) + load(odd, 0, lanes=half))
        return bind(total), bind(load(single, 0) + reduce_lanes(both, "add"))

    def _normalize(self, row: Expr, total: Expr, reciprocal: Expr, moves: Expr) -> None:
        """``(d r + half) >> moves``, d moved up where that shift is under 32; then int32."""
        up = bind(tirx.max(32 - moves, 0))
        down = bind(moves + up - 32)
        factor = bind(cast(reciprocal, "int64"))
        half = bind(const(1, "int64") << (cast(down, "int64") + 31))

        def emit(i: Expr, lanes: int) -> None:
            d = cast(load(self.x, row, i, lanes=lanes), "int32") * self.channels
            d = bind((d - splat(total, lanes)) << splat(up, lanes))
            wide = multiply_add(
                d,
                wide_factor(factor, lanes, self.split),
                wide_splat(half, lanes, self.split),
                self.split,
            )
            t = wide.high() >> splat(down, lanes)
            scaled = t * load(self.multiplier, i, lanes=lanes) + load(self.add, i, lanes=lanes)
            value = clamp(scaled >> splat(self.shift, lanes), self.low, self.high)
            store(self.out, value, row, i)

        for_chunks(self.channels, self.lanes, emit)


def zeros(lanes: int, dtype: str) -> Buffer:
    """A register of zeros."""
    register = alloc((lanes,), dtype)
    store(register, const(0, dtype, lanes), 0)
    return register


def accumulate(register: Buffer, value: Expr) -> None:
    """Add to a register."""
    store(register, load(register, 0, lanes=lanes_of(value)) + value, 0)


def emit_reciprocals(radicands: Buffer, reciprocals: Buffer) -> None:
    """``(2**61 - 1) // floor(sqrt(n))`` for each n in [2**60, 2**62), bit by bit."""
    n = load(radicands, 0, lanes=BLOCK)
    root = _largest(lambda t: t * t <= n)
    limit = const((1 << RECIPROCAL_BITS) - 1, "int64", BLOCK)
    wide_root = bind(cast(root, "int64"))
    store(reciprocals, _largest(lambda t: t * wide_root <= limit), 0)


def _largest(fits: Callable[[Expr], Expr]) -> Expr:
    """The largest value below 2**31 that fits, if all smaller ones do, in int32 lanes.

    Args:
        fits: called with int64 lanes that LLVM knows to be 32-bit, which makes a product cheap.
    """
    value = zeros(BLOCK, "int32")
    with serial(ROOT_BITS) as i:
        bit = bind(const(1 << (ROOT_BITS - 1), "int32") >> i)
        old = load(value, 0, lanes=BLOCK)
        trial = bind(old | splat(bit, BLOCK))
        store(value, tirx.Select(fits(bind(cast(trial, "int64"))), trial, old), 0)
    return load(value, 0, lanes=BLOCK)
