"""I-LayerNorm and RMS normalization: `numerics.int_layernorm` in blocks of rows.

`numerics.int_rmsnorm` is the same with a row sum of 0.

A block takes three steps: each row's sums and its radicand; the square roots and reciprocals of
all of its rows at once (`compiler.kernels.cpu.roots`); each row's normalization, a 64-bit product
for each element of which the high half is enough,

    (d r + half) >> (32 + down)  =  high(C x r + (half - S r)) >> down

Where the shift is under 32 (a row of almost equal values), d = C x - S is moved up first.

16-bit rows take `vpmaddwd`, where the processor has it: with (1, 1) for the sums, with x itself for
the squares (a pair's sum is an unsigned 32-bit value), with (C, 0) and (0, C) for C times the even
and the odd elements, with (m, 0) for the channel's multiplier. m and b are arranged for that.

All blocks have the same number of rows: the last one begins earlier and repeats some rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.arith import clamp, multiply_add, wide_factor, wide_splat
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    T,
    alloc,
    bind,
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
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.elementwise import scalars
from vitq.compiler.kernels.cpu.fixed import Halves, Longs, Words
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.cpu.roots import SMALLEST_RADICAND, emit_reciprocals
from vitq.compiler.kernels.forms.int_layernorm import headroom, variance
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.int_layernorm import RECIPROCAL_BITS

ROOTS = 8
"""Rows whose roots share a vector."""


@dataclass(frozen=True)
class LayerNormSpec:
    """Static facts.

    Attributes:
        packed: how many channels, from the first, are taken in 16-bit lanes.
        full: the output's bounds are int8's.
        centred: around the mean; RMS normalization is not.
    """

    packed: int
    full: bool
    centred: bool = True


def lower_layernorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
    template: Template | None = None,
) -> KernelCall:
    """``vitq.layernorm``: x (..., C), multiplier (C,), addend (C,), params."""
    template = template or LAYERNORM
    halves, channels = halves_for(features), operands[0].shape[-1]
    packed = 0
    if halves and operands[0].dtype == "int16" and out.dtype == "int8":
        packed = channels - channels % (2 * halves.lanes)
    lanes = halves.lanes if halves else 1
    multiplier = _even_odd(constants[1], packed, lanes)
    multiplier[:packed] &= 0xFFFF
    arranged = (multiplier, _even_odd(constants[2], packed, lanes))
    low, high = (int(v) for v in constants[3][3:5])
    spec = LayerNormSpec(packed, (low, high) == (-128, 127), template is LAYERNORM)
    inputs = (operands[0], *(tensor_of(c) for c in arranged), operands[3])
    return KernelCall(Kernel(template, inputs, out, features, spec), (0, *arranged, 3))


def lower_rmsnorm(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.rmsnorm``: the operands of ``vitq.layernorm``."""
    return lower_layernorm(operands, constants, out, features, RMSNORM)


def _even_odd(values: IntArray, packed: int, lanes: int) -> IntArray:
    """In each `lanes` of the first `packed` values, the even ones before the odd ones."""
    result = np.array(values, np.int32)
    pairs = result[:packed].reshape(-1, lanes // 2, 2) if packed else result[:0]
    result[:packed] = pairs.swapaxes(1, 2).reshape(-1) if packed else pairs
    return result


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    """Rows of a block: more share the roots' latency, fewer balance the threads."""
    rows = kernel.inputs[0].rows.shape[0]
    choices = tuple(b for b in (8, 16, 32, 64) if b <= rows) or (rows,)
    return {"block": Knob(choices, max(b for b in choices if b <= 32 or b == rows))}


def _layernorm_body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    multiplier: Buffer,
    add: Buffer,
    params: Buffer,
    result: Buffer,
) -> None:
    rows = kernel.inputs[0].rows.shape[0]
    block = schedule["block"]
    layer = _Layer(kernel, view(x, kernel.inputs[0].rows), (multiplier, add), params)
    out = view(result, kernel.out.rows)
    with parallel(-(-rows // block)) as i:
        first = bind(tirx.min(i * block, rows - block))
        layer.emit_block(first, block, out)


LAYERNORM = Template("layernorm", _layernorm_body, _knobs)
RMSNORM = Template("rmsnorm", _layernorm_body, _knobs)


class _Layer:
    """The buffers and scalars of one call."""

    def __init__(
        self, kernel: Kernel, x: Buffer, constants: tuple[Buffer, Buffer], params: Buffer
    ) -> None:
        """Read the parameters.

        Args:
            kernel: its features and facts.
            x: (rows, channels).
            constants: (C,) int32 each, multipliers and addends.
            params: int64 (5,) of `LayerNormParams.scalars`.
        """
        self.x, self.channels = x, kernel.inputs[0].shape[-1]
        self.multiplier, self.add = constants
        self.epsilon = load(params, 0)
        self.fraction, self.shift, self.low, self.high = scalars(params, 5)[1:]
        self.lanes, self.split = kernel.features.lanes, dot_for(kernel.features).split
        self.spec: LayerNormSpec = kernel.spec
        self.halves = halves_for(kernel.features) if self.spec.packed else None

    def emit_block(self, first: Expr, rows: int, out: Buffer) -> None:
        """Normalize some rows."""
        count = -(-rows // ROOTS) * ROOTS
        totals, moves = alloc((rows,), "int32"), alloc((rows,), "int32")
        radicands, reciprocals = alloc((count,), "int64"), alloc((count,), "int32")
        for r in range(rows, count):
            store(radicands, const(SMALLEST_RADICAND, "int64"), r)
        with serial(rows) as r:
            total, squares = _Sums(self).emit(first + r)
            total = total if self.spec.centred else const(0, "int32")
            total64 = bind(cast(total, "int64"))
            spread = variance(Longs(), self.channels, total64, squares, self.epsilon)
            k = headroom(Words(), cast(tirx.clz(spread), "int32"))
            store(totals, total, r)
            store(radicands, spread << cast(2 * k, "int64"), r)
            store(moves, RECIPROCAL_BITS - k - self.fraction, r)
        emit_reciprocals(radicands, reciprocals, count)
        with serial(rows) as r:
            scale = load(totals, r), load(reciprocals, r), load(moves, r)
            self._emit_row(out, first + r, scale)

    def _emit_row(self, out: Buffer, row: Expr, scale: tuple[Expr, Expr, Expr]) -> None:
        """Two forms where a processor has 16-bit lanes: code that is worth its size."""
        if self.halves is None:
            _Row(self, out, row, scale, shifted=True).emit()
            return
        with T.If(scale[2] >= 32):
            with T.Then():
                _Row(self, out, row, scale, shifted=False).emit()
            with T.Else():
                _Row(self, out, row, scale, shifted=True).emit()


class _Sums:
    """Sum and sum of squares of rows."""

    def __init__(self, layer: _Layer) -> None:
        self.layer = layer
        lanes = layer.lanes
        self.totals = {n: zeros(n, "int32") for n in (1, lanes)}
        self.single = zeros(1, "int64")
        self.even, self.odd = zeros(lanes // 2, "int64"), zeros(lanes // 2, "int64")

    def emit(self, row: Expr) -> tuple[Expr, Expr]:
        """Return the sum (int32) and the sum of squares (int64) of a row."""
        layer, lanes = self.layer, self.layer.lanes
        packed = layer.spec.packed

        def add(i: Expr, n: int) -> None:
            value = bind(cast(load(layer.x, row, i, lanes=n), "int32"))
            accumulate(self.totals[n], value)
            if n == 1:
                accumulate(self.single, cast(cast(value * value, "uint32"), "int64"))
            else:
                self._add_squares(bind(value * value))

        def add_words(i: Expr, n: int) -> None:
            assert layer.halves is not None
            words = load(layer.x, row, i, lanes=n)
            ones = const(1, "int16", n)
            accumulate(self.totals[lanes], layer.halves.multiply_pairs(words, ones))
            self._add_squares(layer.halves.multiply_pairs(words, words))

        if layer.halves:
            for_chunks(packed, layer.halves.lanes, add_words)
        for_chunks(layer.channels - packed, lanes, add, packed)
        vector = load(self.totals[lanes], 0, lanes=lanes)
        total = load(self.totals[1], 0) + reduce_lanes(vector, "add")
        both = bind(load(self.even, 0, lanes=lanes // 2) + load(self.odd, 0, lanes=lanes // 2))
        return bind(total), bind(load(self.single, 0) + reduce_lanes(both, "add"))

    def _add_squares(self, squares: Expr) -> None:
        """Add lanes of unsigned 32-bit values."""
        half = self.layer.lanes // 2
        pairs = bind(reinterpret(squares, f"uint64x{half}"))
        accumulate(self.even, cast(pairs & const(0xFFFFFFFF, "uint64", half), "int64"))
        accumulate(self.odd, cast(pairs >> const(32, "uint64", half), "int64"))


class _Row:
    """Emits one row's normalization."""

    def __init__(
        self,
        layer: _Layer,
        out: Buffer,
        row: Expr,
        scale: tuple[Expr, Expr, Expr],
        *,
        shifted: bool,
    ) -> None:
        """Prepare the row's scalars.

        Args:
            layer: what all rows share.
            out: (rows, channels).
            row: which.
            scale: S, r, and the shift of ``d r``.
            shifted: for any shift; otherwise it is at least 32.
        """
        total, reciprocal, moves = scale
        self.layer, self.out, self.row, self.total = layer, out, row, total
        self.shifted = shifted
        self.up = bind(tirx.max(32 - moves, 0)) if shifted else None
        self.down = bind(tirx.max(moves - 32, 0)) if shifted else bind(moves - 32)
        self.factor = bind(cast(reciprocal, "int64"))
        half = const(1, "int64") << (cast(self.down, "int64") + 31)
        self.addend = bind(half if shifted else half - cast(total, "int64") * self.factor)

    def emit(self) -> None:
        """Return the packed channels, then the rest."""
        layer, packed = self.layer, self.layer.spec.packed
        if layer.halves:
            for_chunks(packed, 2 * layer.halves.lanes, self._packed)
        for_chunks(layer.channels - packed, layer.lanes, self._plain, packed)

    def _fraction(self, products: Expr) -> Expr:
        """T for lanes of C x."""
        lanes, split = lanes_of(products), self.layer.split
        if self.shifted:
            products = bind((products - splat(self.total, lanes)) << splat(self.up, lanes))
        factor = wide_factor(self.factor, lanes, split)
        wide = multiply_add(products, factor, wide_splat(self.addend, lanes, split), split)
        return bind(wide.high() >> splat(self.down, lanes))

    def _plain(self, i: Expr, lanes: int) -> None:
        layer = self.layer
        x = cast(load(layer.x, self.row, i, lanes=lanes), "int32")
        t = self._fraction(bind(x * layer.channels))
        scaled = t * load(layer.multiplier, i, lanes=lanes) + load(layer.add, i, lanes=lanes)
        value = clamp(scaled >> splat(layer.shift, lanes), layer.low, layer.high)
        store(self.out, value, self.row, i)

    def _packed(self, i: Expr, lanes: int) -> None:
        if lanes == 1:
            return
        q = self.layer.halves
        assert q is not None
        words = [self._words(i + part * q.lanes, q) for part in range(2)]
        store(self.out, q.bytes_of_pairs(*words), self.row, i)

    def _words(self, i: Expr, q: Halves) -> Expr:
        """One register of x as one register of results, even before odd in each block."""
        layer, lanes = self.layer, self.layer.lanes
        x = load(layer.x, self.row, i, lanes=q.lanes)
        values = []
        for odd in range(2):
            factor = reinterpret(const(layer.channels << (16 * odd), "int32", lanes), x.ty.dtype)
            t = self._fraction(q.multiply_pairs(x, bind(factor)))
            m = load(layer.multiplier, i + odd * lanes, lanes=lanes)
            pairs = (bind(reinterpret(v, f"int16x{q.lanes}")) for v in (t, m))
            scaled = q.multiply_pairs(*pairs) + load(layer.add, i + odd * lanes, lanes=lanes)
            values.append(bind(scaled >> splat(layer.shift, lanes)))
        packed = q.pack(*values)
        if layer.spec.full:
            return packed
        return clamp(packed, *(bind(cast(b, "int16")) for b in (layer.low, layer.high)))


def zeros(lanes: int, dtype: str) -> Buffer:
    """Make a register of zeros."""
    register = alloc((lanes,), dtype)
    store(register, const(0, dtype, lanes), 0)
    return register


def accumulate(register: Buffer, value: Expr) -> None:
    """Add to a register."""
    store(register, load(register, 0, lanes=lanes_of(value)) + value, 0)
