"""Shiftmax rows: unnormalized 8-bit codes (uniform, logarithmic, twin), and the normalized form.

A row takes two passes, its maximum and its exponentials; the normalized form a third one that
divides by their sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.arith import Wide, clamp, multiply_add, wide_factor, wide_splat
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    for_chunks,
    lanes_of,
    load,
    parallel,
    reduce_lanes,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.fixed import Halves, VectorLanes, Words
from vitq.compiler.kernels.cpu.scaling import Rescale, rescale_constants
from vitq.compiler.kernels.forms.shiftmax import code_weight, exponential
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.exp2 import ONE
from vitq.numerics.shiftmax import LOG2_FRACTION_BITS, WIDE_LIMIT, CodeParams
from vitq.numerics.twin_codes import TwinCodes

LOWEST = -(2**30)
"""Below every score; its distance from the largest score is still an int32."""


@dataclass(frozen=True)
class NormalizeSpec:
    """Static facts about NormalizeParams that choose cheaper code.

    Attributes:
        high: the shift is at least 32.
        two_steps: ``M // sum`` may be a long division by 16-bit digits, in 32-bit registers,
            because sums are below 2**16 and M is below 2**48. A 64-bit division takes four times
            as long.
    """

    high: bool
    two_steps: bool


class CodeSpec(NamedTuple):
    """Static facts about CodeParams.

    Attributes:
        grid_bits: of the exponent's grid.
        zero_last: whether the exponent's limit stands for a weight of 0.
        twin: the ranges of the weights.
    """

    grid_bits: int
    zero_last: bool
    twin: TwinCodes

    @property
    def is_uniform(self) -> bool:
        """Whether the exponent needs no limit: in 16 bits it saturates where codes are 0."""
        return self.grid_bits == LOG2_FRACTION_BITS


def code_spec(p: CodeParams) -> CodeSpec:
    """Facts about the parameters."""
    return CodeSpec(p.grid_bits, bool(p.zero_last), p.twin)


def lower_shiftmax_codes(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftmax_codes``: x (..., N), params -> u8."""
    p = CodeParams(*(int(v) for v in constants[1]))
    rescale = rescale_constants(p.multiplier, p.shift, p.limit)
    inputs = (operands[0], tensor_of(rescale))
    kernel = Kernel(SHIFTMAX_CODES, inputs, out, features, code_spec(p))
    return KernelCall(kernel, (0, rescale))


def _codes_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, rescale: Buffer, result: Buffer
) -> None:
    rows, columns = kernel.inputs[0].rows.shape

    source, target = view(x, kernel.inputs[0].rows), view(result, kernel.out.rows)
    octaves = Rescale(rescale, dot_for(kernel.features).split)
    with parallel(rows) as r:
        top = emit_row_maximum(source, r, columns, kernel.features.lanes)

        def emit(i: Expr, lanes: int) -> None:
            score = cast(load(source, r, i, lanes=lanes), "int32")
            store(target, emit_codes(splat(top, lanes) - score, octaves, kernel.spec), r, i)

        for_chunks(columns, kernel.features.lanes, emit)


SHIFTMAX_CODES = Template("shiftmax_codes", _codes_body)


def emit_row_maximum(x: Buffer, row: Expr, columns: int, lanes: int) -> Expr:
    """Return the largest value of a row as an int32 scalar."""
    vector, scalar = alloc((lanes,), "int32"), alloc((1,), "int32")
    lowest = tirx.min_value("int32")
    store(vector, splat(lowest, lanes), 0)
    store(scalar, lowest, 0)

    def update(i: Expr, n: int) -> None:
        acc = scalar if n == 1 else vector
        value = cast(load(x, row, i, lanes=n), "int32")
        store(acc, tirx.max(load(acc, 0, lanes=n), value), 0)

    for_chunks(columns, lanes, update)
    return bind(tirx.max(load(scalar, 0), reduce_lanes(load(vector, 0, lanes=lanes), "smax")))


def emit_codes(distance: Expr, octaves: Rescale, spec: CodeSpec) -> Expr:
    """8-bit exponentials of the negative `distance` (int32 lanes, >= 0)."""
    return _weights(octaves(bind(distance)), octaves.limit, spec, Words())


def emit_half_codes(k: Expr, limit: Expr, spec: CodeSpec, q: Halves) -> Expr:
    """Return the codes of 16-bit exponents, unsigned and not limited yet."""
    if not spec.is_uniform:
        k = q.unsigned_min(k, limit)
    return _weights(k, limit, spec, q)


def _weights(k: Expr, limit: Expr, spec: CodeSpec, q: VectorLanes) -> Expr:
    """Return the weights of exponents up to a scalar limit."""
    return code_weight(q, k, k < splat(cast(limit, q.dtype), lanes_of(k)), spec)


def emit_packed_octaves(distances: Sequence[Expr], octaves: Rescale, q: Halves) -> Expr:
    """Octaves of two registers of distances in 64 bits, as `Halves.pack_unsigned` arranges them."""
    first, second = (octaves(d, limited=False) for d in distances)
    return q.pack_unsigned(first, second)


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
    spec = normalize_spec(norm, ONE * operands[0].shape[-1])
    return KernelCall(Kernel(SHIFTMAX, inputs, out, features, spec), (0, rescale, norm))


def _shiftmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, rescale: Buffer, norm: Buffer, result: Buffer
) -> None:
    rows, columns = kernel.inputs[0].rows.shape

    source, target = view(x, kernel.inputs[0].rows), view(result, kernel.out.rows)
    octaves = Rescale(rescale, dot_for(kernel.features).split)
    normalize = Normalize(norm, kernel.spec, dot_for(kernel.features).split)
    with parallel(rows) as r:
        top = emit_row_maximum(source, r, columns, kernel.features.lanes)
        wide = alloc((columns,), "int32")

        def emit(i: Expr, lanes: int) -> None:
            score = cast(load(source, r, i, lanes=lanes), "int32")
            t = octaves(bind(splat(top, lanes) - score))
            store(wide, exponential(Words(), t), i)

        for_chunks(columns, kernel.features.lanes, emit)
        multiplier = normalize.multiplier(emit_sum(wide, columns, kernel.features.lanes))

        def scale(i: Expr, lanes: int) -> None:
            store(target, normalize(load(wide, i, lanes=lanes), multiplier), r, i)

        for_chunks(columns, kernel.features.lanes, scale)


SHIFTMAX = Template("shiftmax", _shiftmax_body)


def emit_sum(values: Buffer, columns: int, lanes: int) -> Expr:
    """Sum of an int32 vector, an int32 scalar."""
    vector, scalar = alloc((lanes,), "int32"), alloc((1,), "int32")
    store(vector, const(0, "int32", lanes), 0)
    store(scalar, const(0, "int32"), 0)

    def update(i: Expr, n: int) -> None:
        acc = scalar if n == 1 else vector
        store(acc, load(acc, 0, lanes=n) + load(values, i, lanes=n), 0)

    for_chunks(columns, lanes, update)
    return bind(load(scalar, 0) + reduce_lanes(load(vector, 0, lanes=lanes), "add"))


class Normalize:
    """Emits `numerics.shiftmax.normalize` with parameters read from a buffer."""

    def __init__(self, params: Buffer, spec: NormalizeSpec, split: bool) -> None:
        """Read the parameters.

        Args:
            params: int64 (5,) NormalizeParams.
            spec: static facts about them.
            split: see `compiler.kernels.cpu.arith`.
        """
        self.numerator, self.shift, zero, self.low, self.high = (load(params, i) for i in range(5))
        one = const(1, "int64")
        self.addend = bind((one << (self.shift - 1)) + (zero << self.shift))
        self.spec, self.split = spec, split

    def multiplier(self, total: Expr) -> Expr:
        """``M // total`` for an int32 scalar, as int32."""
        if not self.spec.two_steps:
            return bind(cast(tirx.truncdiv(self.numerator, cast(total, "int64")), "int32"))
        divisor = bind(cast(total, "uint32"))
        low_word = const(16, "uint32")
        upper = bind(cast(self.numerator >> 16, "uint32"))
        first = bind(tirx.truncdiv(upper, divisor))
        lower = cast(self.numerator & const(0xFFFF, "int64"), "uint32")
        rest = bind(((upper - first * divisor) << low_word) | lower)
        return bind(cast((first << low_word) + tirx.truncdiv(rest, divisor), "int32"))

    def __call__(self, acc: Expr, multiplier: Expr) -> Expr:
        """Scale int32 lanes by the row's multiplier, round, move and clamp, as int32."""
        wide = self._scaled(acc, multiplier)
        if self.spec.high:
            return clamp(self._moved(wide), *(cast(b, "int32") for b in (self.low, self.high)))
        moved = wide.map(lambda v: v >> splat(self.shift, lanes_of(v)))
        return moved.map(lambda v: clamp(v, self.low, self.high)).low()

    def as_bytes(self, accs: Sequence[Expr], multiplier: Expr, q: Halves) -> Expr:
        """Four registers as one of int8 in order; needs `NormalizeSpec.high`."""
        moved = [self._moved(self._scaled(acc, multiplier)) for acc in accs]
        words = [q.pack(moved[i], moved[i + 1]) for i in (0, 2)]
        bounds = [bind(cast(b, "int16")) for b in (self.low, self.high)]
        first, second = (clamp(w, *bounds) for w in words)
        return q.bytes_in_order(first, second, signed=True)

    def _scaled(self, acc: Expr, multiplier: Expr) -> Wide:
        lanes = lanes_of(acc)
        factor = wide_factor(bind(cast(multiplier, "int64")), lanes, self.split)
        return multiply_add(acc, factor, wide_splat(self.addend, lanes, self.split), self.split)

    def _moved(self, wide: Wide) -> Expr:
        high = wide.high()
        return bind(high >> splat(cast(self.shift - 32, "int32"), lanes_of(high)))


def normalize_spec(params: IntArray, largest_sum: int) -> NormalizeSpec:
    """Facts about the parameters (5,) for row sums up to `largest_sum`."""
    return NormalizeSpec(
        int(params[1]) >= 32, largest_sum < 1 << 16 and 0 <= int(params[0]) < 1 << 48
    )
