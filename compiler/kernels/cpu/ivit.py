"""I-ViT's Shiftmax and ShiftGELU rows: `numerics.ivit` in 64-bit lanes.

A row takes its maximum, then its exponentials. Division by I0 is a multiplication:

    m = 2**46 // I0 + 1,   t // I0 = (t m) >> 46   for 0 <= t <= 23 I0, I0 <= 2**20

because ``t (m I0 - 2**46) <= 23 I0**2 < 2**46``. The reciprocal of a sum stays a 64-bit division:
one for a row of Shiftmax, but one for each element of ShiftGELU, which is most of its time.

ShiftGELU of 8-bit codes depends on two codes only, the row's maximum and the element's own, so that
`numerics.ivit` fills a table of at most 64 Ki results at compile time; a row reads 256 of them.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.arith import clamp
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
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.fixed import Longs
from vitq.compiler.kernels.cpu.softmax import emit_row_maximum
from vitq.compiler.kernels.forms.dyadic import rescaled
from vitq.compiler.kernels.forms.ivit import gelu_power, int_div, shift_exp
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import addend, scalar_dyadic
from vitq.numerics.ivit import (
    GELU_OCTAVES,
    RECIPROCAL_BITS,
    SOFTMAX_OCTAVES,
    IvitGeluParams,
    IvitSoftmaxParams,
    ivit_shiftgelu,
)

UNIT_BITS = 46
LONGS = Longs()


def _unit_constants(i0: int) -> list[int]:
    """I0 and the multiplier that divides by it."""
    return [i0, (1 << UNIT_BITS) // i0 + 1]


def lower_ivit_shiftmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.ivit_shiftmax``: x (..., N), params -> u8."""
    p = IvitSoftmaxParams(*(int(v) for v in constants[1]))
    packed = np.array(_unit_constants(p.i0), np.int64)
    inputs = (operands[0], tensor_of(packed))
    return KernelCall(Kernel(IVIT_SHIFTMAX, inputs, out, features), (0, packed))


def _shiftmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, result: Buffer
) -> None:
    rows, columns = kernel.inputs[0].rows.shape
    wide_lanes = kernel.features.lanes // 2

    source, target = view(x, kernel.inputs[0].rows), view(result, kernel.out.rows)
    unit = _Unit(params)
    with parallel(rows) as r:
        top = emit_row_maximum(source, r, columns, kernel.features.lanes)
        row, sums = alloc((columns,), "int64"), alloc((wide_lanes,), "int64")
        store(sums, const(0, "int64", wide_lanes), 0)

        def exponential(i: Expr, lanes: int) -> None:
            e = unit.exp(_distance(source, r, i, top, lanes), SOFTMAX_OCTAVES)
            store(row, e, i)
            store(sums, load(sums, 0, lanes=lanes) + e, 0)

        for_chunks(columns, wide_lanes, exponential)
        total = functools.reduce(lambda a, b: a + b, (load(sums, i) for i in range(wide_lanes)))
        one = const(1 << RECIPROCAL_BITS, "int64")
        reciprocal = bind(tirx.truncdiv(one, bind(total)))

        def divide(i: Expr, lanes: int) -> None:
            store(target, int_div(LONGS, load(row, i, lanes=lanes), reciprocal), r, i)

        for_chunks(columns, wide_lanes, divide)


IVIT_SHIFTMAX = Template("ivit_shiftmax", _shiftmax_body)


def lower_ivit_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.ivit_shiftgelu``: x (..., C), params."""
    p = IvitGeluParams(*(int(v) for v in constants[1]))
    if np.iinfo(operands[0].dtype).bits == 8:
        table = _gelu_table(p, operands[0].dtype, out.dtype)
        kernel = Kernel(IVIT_TABLE, (operands[0], tensor_of(table)), out, features)
        return KernelCall(kernel, (0, table))
    add = int(addend(np.asarray(0), scalar_dyadic(p.multiplier, p.shift), p.zero_point))
    rest = (p.x_zero_point, p.multiplier, add, p.shift, p.qmin, p.qmax)
    packed = np.array([*_unit_constants(p.i0), *rest], np.int64)
    inputs = (operands[0], tensor_of(packed))
    return KernelCall(Kernel(IVIT_SHIFTGELU, inputs, out, features), (0, packed))


def _gelu_table(p: IvitGeluParams, dtype: str, out_dtype: str) -> IntArray:
    """Results (maxima, 256): of rows with the maxima from the zero point to the type's largest.

    Where the maximum is below the zero point, m is 0 as it is at the zero point.
    """
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1)
    maxima = codes[codes >= p.x_zero_point][:, None]
    return ivit_shiftgelu(np.minimum(codes, maxima), p).astype(out_dtype)


def _table_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, result: Buffer
) -> None:
    x_type, table_type = kernel.inputs
    rows, columns = x_type.rows.shape
    info = np.iinfo(x_type.dtype)
    first = int(info.max) + 1 - table_type.shape[0]

    source, target = view(x, x_type.rows), view(result, kernel.out.rows)
    with parallel(rows) as r:
        top = emit_row_maximum(source, r, columns, kernel.features.lanes)
        line = bind(tirx.max(top, const(first, "int32")) - first)

        def emit(i: Expr, lanes: int) -> None:
            code = bind(cast(load(source, r, i, lanes=lanes), "int32") - int(info.min))
            store(target, load(table, line, code), r, i)

        for_chunks(columns, 1, emit)


IVIT_TABLE = Template("ivit_shiftgelu", _table_body)


def _gelu_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, result: Buffer
) -> None:
    rows, columns = kernel.inputs[0].rows.shape

    source, target = view(x, kernel.inputs[0].rows), view(result, kernel.out.rows)
    unit = _Unit(params)
    x_zero, multiplier, add, shift, low, high = (load(params, i) for i in range(2, 8))
    with parallel(rows) as r:
        top = emit_row_maximum(source, r, columns, kernel.features.lanes)
        # The power rises with x, so that the largest x has the largest power.
        largest = bind(gelu_power(bind(cast(top, "int64") - x_zero)))
        largest = bind(tirx.max(largest, const(0, "int64")))
        other = unit.exp(bind(const(0, "int64") - largest), GELU_OCTAVES)

        def emit(i: Expr, lanes: int) -> None:
            codes = cast(load(source, r, i, lanes=lanes), "int64")
            centred = bind(codes - splat(x_zero, lanes))
            distance = bind(gelu_power(centred) - splat(largest, lanes))
            sigmoid = _sigmoid(unit.exp(distance, GELU_OCTAVES), other)
            scaled = rescaled(LONGS, centred * sigmoid, multiplier, add, shift)
            store(target, clamp(scaled, low, high), r, i)

        for_chunks(columns, kernel.features.lanes // 2, emit)


IVIT_SHIFTGELU = Template("ivit_shiftgelu", _gelu_body)


class _Unit:
    """Emits `numerics.ivit.shift_exp` with I0 read from a buffer."""

    def __init__(self, params: Buffer) -> None:
        self.i0, self.multiplier = load(params, 0), load(params, 1)

    def exp(self, x: Expr, octaves: int) -> Expr:
        """Return the exponential of int64 lanes <= 0."""

        def divided(t: Expr) -> Expr:
            return bind((t * self.multiplier) >> UNIT_BITS)

        return shift_exp(LONGS, x, self.i0, octaves, divided)


def _distance(x: Buffer, row: Expr, column: Expr, top: Expr, lanes: int) -> Expr:
    """Score minus the row's maximum as int64 lanes."""
    wide = cast(load(x, row, column, lanes=lanes), "int64")
    return bind(wide - splat(bind(cast(top, "int64")), lanes))


def _sigmoid(e: Expr, other: Expr) -> Expr:
    """``e / (e + other)`` in steps of 1/128."""
    lanes = lanes_of(e)
    one = const(1 << RECIPROCAL_BITS, "int64", lanes)
    reciprocal = bind(tirx.truncdiv(one, bind(e + splat(other, lanes))))
    return int_div(LONGS, e, reciprocal)
