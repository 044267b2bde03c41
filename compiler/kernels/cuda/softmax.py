"""Operators along a row, one warp for each: Shiftmax, and I-ViT's Shiftmax and ShiftGELU.

They serve models whose attention is not fused; each pass over the row reads it again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import (
    LONGS,
    WORDS,
    Normalize,
    divided,
    reciprocal_of,
    rescaled,
)
from vitq.compiler.kernels.cuda.emit import (
    WARP,
    Buffer,
    Expr,
    as_word,
    ceil_div,
    clamp,
    const,
    flat,
    get,
    index,
    keep,
    launch,
    put,
    registers,
    serial,
    when,
    wide,
)
from vitq.compiler.kernels.cuda.kernel import call_of
from vitq.compiler.kernels.cuda.octaves import (
    Capped,
    code_form,
    code_of,
    distance_constants,
)
from vitq.compiler.kernels.forms.ivit import gelu_power, int_div, shift_exp
from vitq.compiler.kernels.forms.shiftmax import exponential
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics import ivit
from vitq.numerics.arrays import IntArray
from vitq.numerics.shiftmax import WIDE_LIMIT, CodeParams

WARPS = 4
LOWEST = -(2**31)
OCTAVE_BITS = 5
"""Of a shift exponential's quotient, which is at most 23."""


class Row:
    """One row of a warp.

    Attributes:
        lane: within the warp.
        base: flat index of the row's first element.
        columns: of the row.
    """

    def __init__(self, x: Buffer, lane: Expr, base: Expr, columns: int) -> None:
        self.data, self.lane, self.base, self.columns = flat(x), lane, base, columns

    @contextmanager
    def elements(self) -> Iterator[tuple[Expr, Expr]]:
        """Code for each of a lane's elements: its flat index and its code."""
        with serial(ceil_div(self.columns, WARP)) as turn:
            column = index(turn * WARP + self.lane)
            with when(True if self.columns % WARP == 0 else column < self.columns):
                at = index(self.base + column)
                yield at, as_word(self.data[at])

    def reduce(self, slot: Buffer, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """Combine a register of all lanes."""
        for mask in (16, 8, 4, 2, 1):
            other = keep(intrinsics.shuffle(slot[0], mask))
            put(slot, 0, combine(slot[0], other))
        return slot[0]

    def maximum(self, value: Callable[[Expr], Expr], start: int = LOWEST) -> Expr:
        """Return the largest of a function of the row's codes, and of `start`."""
        slot = registers(1)
        put(slot, 0, const(start))
        with self.elements() as (_, code):
            put(slot, 0, tirx.max(slot[0], value(code)))
        return self.reduce(slot, tirx.max)

    def total(self, value: Callable[[Expr], Expr]) -> Expr:
        """Return the sum of a function of the row's codes, int64."""
        slot = registers(1, "int64")
        put(slot, 0, const(0, "int64"))
        with self.elements() as (_, code):
            put(slot, 0, slot[0] + wide(value(code)))
        return self.reduce(slot, lambda a, b: a + b)


@contextmanager
def each_row(kernel: Kernel, x: Buffer) -> Iterator[Row]:
    """Code for one row of the last axis."""
    rows, columns = kernel.inputs[0].rows.shape
    with launch((ceil_div(rows, WARPS),), WARP * WARPS) as block:
        number = index(block.x * WARPS + block.warp)
        with when(True if rows % WARPS == 0 else number < rows):
            yield Row(x, block.lane, index(number * columns), columns)


def lower_shiftmax_codes(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.shiftmax_codes``: x (..., N), params -> uint8."""
    p = CodeParams(*(int(v) for v in constants[1]))
    packed = distance_constants(p.multiplier, p.shift, p.limit)
    return call_of(SHIFTMAX_CODES, operands, (0, packed), out, features, code_form(p))


def _codes_body(kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer) -> None:
    with each_row(kernel, x) as row:
        capped = Capped(params, kernel.spec.limit)
        largest = row.maximum(lambda code: code)
        with row.elements() as (at, code):
            put(flat(out), at, code_of(capped(keep(largest - code)), kernel.spec))


def lower_shiftmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.shiftmax``: x (..., N), params -> codes of the output's quantizer."""
    values = constants[1].astype(np.int64)
    packed = distance_constants(int(values[0]), int(values[1]), WIDE_LIMIT)
    return call_of(SHIFTMAX, operands, (0, packed, values[2:].copy()), out, features)


def _shiftmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, norm: Buffer, out: Buffer
) -> None:
    with each_row(kernel, x) as row:
        capped, normalize = Capped(params, WIDE_LIMIT), Normalize(norm)
        largest = row.maximum(lambda code: code)

        def weight(code: Expr) -> Expr:
            return exponential(WORDS, capped(keep(largest - code)))

        multiplier = normalize.multiplier(row.total(weight))
        with row.elements() as (at, code):
            put(flat(out), at, normalize(weight(code), multiplier))


def _shift_exp(x: Expr, i0: Expr, count: int) -> Expr:
    """`numerics.ivit.shift_exp` of an int32, int64."""
    return shift_exp(LONGS, keep(wide(x)), i0, count, lambda t: divided(keep(t), i0, OCTAVE_BITS))


def _int_div(a: Expr, reciprocal: Expr) -> Expr:
    """`numerics.ivit.int_div`, int32."""
    return as_word(int_div(LONGS, a, reciprocal))


def lower_ivit_shiftmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.ivit_shiftmax``: x (..., N), params -> uint8."""
    return call_of(IVIT_SHIFTMAX, operands, (0, constants[1].astype(np.int64)), out, features)


def _ivit_shiftmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer
) -> None:
    with each_row(kernel, x) as row:
        i0 = get(params, 0)
        largest = row.maximum(lambda code: code)

        def exponential(code: Expr) -> Expr:
            return _shift_exp(keep(code - largest), i0, ivit.SOFTMAX_OCTAVES)

        reciprocal = reciprocal_of(row.total(exponential), ivit.RECIPROCAL_BITS)
        with row.elements() as (at, code):
            put(flat(out), at, _int_div(exponential(code), reciprocal))


def lower_ivit_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.ivit_shiftgelu``: x (..., C), params."""
    return call_of(IVIT_SHIFTGELU, operands, (0, constants[1].astype(np.int64)), out, features)


def _ivit_shiftgelu_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer
) -> None:
    with each_row(kernel, x) as row:
        x_zero, i0, m, s, zero, low, high = (get(params, i) for i in range(7))
        x_zero = as_word(x_zero)
        half = keep(const(1, "int64") << (s - const(1, "int64")))

        def power(code: Expr) -> Expr:
            return keep(gelu_power(keep(code - x_zero)))

        largest = row.maximum(power, start=0)
        floor = _shift_exp(keep(const(0) - largest), i0, ivit.GELU_OCTAVES)
        with row.elements() as (at, code):
            e = _shift_exp(keep(power(code) - largest), i0, ivit.GELU_OCTAVES)
            reciprocal = reciprocal_of(keep(e + floor), ivit.RECIPROCAL_BITS)
            product = keep((code - x_zero) * _int_div(e, reciprocal))
            put(flat(out), at, clamp(rescaled(product, m, half, s) + zero, low, high))


SHIFTMAX_CODES = Template("shiftmax_codes", _codes_body)
SHIFTMAX = Template("shiftmax", _shiftmax_body)
IVIT_SHIFTMAX = Template("ivit_shiftmax", _ivit_shiftmax_body)
IVIT_SHIFTGELU = Template("ivit_shiftgelu", _ivit_shiftgelu_body)
