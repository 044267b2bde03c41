"""Products of two activations: plain int32 accumulators, and attention's normalized product.

For each matrix of the batch the right operand is packed into scratch; zero points become one
int32 for each column (from the packed sums) and one for each row.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    load,
    parallel,
    serial,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.microkernel import (
    Epilogue,
    Product,
    emit_product,
    stage_rows,
    store_lanes,
)
from vitq.compiler.kernels.cpu.packing import (
    emit_column_sums,
    emit_row_sums,
    offset_sums,
    pack_columns,
    pack_rows,
    stored_zero_point,
)
from vitq.compiler.kernels.cpu.softmax import Normalize, normalize_spec
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.shiftmax import CODE_MAX


def _matrices(t: TensorType) -> TensorType:
    """View a stack of matrices with one batch axis."""
    return TensorType((prod(t.shape[:-2]), *t.shape[-2:]), t.dtype)


def lower_matmul(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.matmul``: a (..., M, K), b (..., N, K), params (a_zp, b_zp) -> int32 (..., M, N)."""
    return KernelCall(Kernel(MATMUL, tuple(operands), out, features), (0, 1, 2))


def _matmul_body(
    kernel: Kernel, schedule: Schedule, a: Buffer, b: Buffer, params: Buffer, result: Buffer
) -> None:
    dot = dot_for(kernel.features)
    a_type, b_type = _matrices(kernel.inputs[0]), _matrices(kernel.inputs[1])
    batch, rows, inner = a_type.shape
    channels = b_type.shape[1]

    left, right = view(a, a_type), view(b, b_type)
    target = view(result, _matrices(kernel.out))
    za, zb = (bind(cast(load(params, i), "int32")) for i in range(2))
    a_zero = stored_zero_point(za, a_type.dtype, dot, weights=False)
    b_zero = stored_zero_point(zb, b_type.dtype, dot, weights=True)
    with parallel(batch) as i:
        staged = stage_rows(
            lambda r, k, n: load(left, i, r, k, lanes=n),
            rows,
            inner,
            a_type.dtype,
            dot,
            serial,
        )
        packed = pack_rows(
            lambda r, k, n: load(right, i, r, k, lanes=n), channels, inner, b_type.dtype, dot
        )
        by_row = _row_terms(staged, rows, inner, (a_zero, b_zero), dot)
        start = _column_terms(packed, channels, inner, a_zero, dot)

        def epilogue(valid: int) -> Epilogue:
            def finish(row: Expr, group: Expr, acc: Expr) -> None:
                value = bind(acc + load(by_row, row, 0, lanes=dot.lanes))
                store_lanes(target, value, valid, i, row, group * dot.lanes)

            return finish

        product = Product(
            dot,
            staged,
            packed,
            dot.steps(inner),
            lambda g: load(start, g, 0, lanes=dot.lanes),
        )
        emit_product(product, rows, channels, epilogue, serial)


MATMUL = Template("matmul", _matmul_body)


def _row_terms(staged: Buffer, rows: int, inner: int, zeros: tuple[Expr, Expr], dot: Dot) -> Buffer:
    """``K a_zp b_zp - b_zp sum(a)`` for each row, in every lane."""
    a_zero, b_zero = zeros
    terms = alloc((rows, dot.lanes), "int32")
    with serial(rows) as r:
        total = emit_row_sums(staged, r, dot.steps(inner), dot)
        constant = splat(a_zero * b_zero * inner, dot.lanes)
        store(terms, constant - total * splat(b_zero, dot.lanes), r, 0)
    return terms


def _column_terms(packed: Buffer, channels: int, inner: int, a_zero: Expr, dot: Dot) -> Buffer:
    """``-a_zp sum(b)`` for each column."""
    groups = dot.groups(channels)
    terms = alloc((groups, dot.lanes), "int32")
    with serial(groups) as g:
        total = emit_column_sums(packed, g, dot.steps(inner), dot)
        store(terms, total * splat(0 - a_zero, dot.lanes), g, 0)
    return terms


def lower_normalized_matmul(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.normalized_matmul``: codes (..., M, N), value (..., N, D), params -> (..., M, D)."""
    params = constants[2].astype(np.int64)
    zero, norm = params[:1].copy(), params[1:].copy()
    inputs = (operands[0], operands[1], tensor_of(zero), tensor_of(norm))
    spec = normalize_spec(norm, CODE_MAX * operands[0].shape[-1])
    return KernelCall(Kernel(NORMALIZED_MATMUL, inputs, out, features, spec), (0, 1, zero, norm))


def _normalized_body(
    kernel: Kernel,
    schedule: Schedule,
    codes: Buffer,
    value: Buffer,
    zero: Buffer,
    norm: Buffer,
    result: Buffer,
) -> None:
    dot = dot_for(kernel.features)
    a_type, v_type = _matrices(kernel.inputs[0]), _matrices(kernel.inputs[1])
    batch, rows, inner = a_type.shape
    channels = v_type.shape[2]

    left, right = view(codes, a_type), view(value, v_type)
    target = view(result, _matrices(kernel.out))
    normalize = Normalize(norm, kernel.spec, dot.split)
    v_zero = stored_zero_point(bind(cast(load(zero, 0), "int32")), v_type.dtype, dot, weights=True)
    with parallel(batch) as i:
        staged = stage_rows(
            lambda r, k, n: load(left, i, r, k, lanes=n),
            rows,
            inner,
            a_type.dtype,
            dot,
            serial,
        )
        packed = pack_columns(
            lambda k, c, n: load(right, i, k, c, lanes=n), inner, channels, v_type.dtype, dot
        )
        totals = _row_totals(staged, rows, (inner, a_type.dtype), dot)

        def epilogue(valid: int) -> Epilogue:
            def finish(row: Expr, group: Expr, acc: Expr) -> None:
                total = load(totals, row, 0)
                centred = bind(acc - splat(total * v_zero, dot.lanes))
                scaled = normalize(centred, normalize.multiplier(total))
                store_lanes(target, scaled, valid, i, row, group * dot.lanes)

            return finish

        sums = offset_sums(packed, a_type.dtype, dot)
        start = None if sums is None else lambda g: load(sums, g, 0, lanes=dot.lanes)
        product = Product(dot, staged, packed, dot.steps(inner), start)
        emit_product(product, rows, channels, epilogue, serial)


NORMALIZED_MATMUL = Template("normalized_matmul", _normalized_body)


def _row_totals(staged: Buffer, rows: int, row: tuple[int, str], dot: Dot) -> Buffer:
    """Return the sum of each row of codes (their number and type), int32, in every lane."""
    inner, dtype = row
    totals = alloc((rows, dot.lanes), "int32")
    added = const(inner * dot.offset(dtype), "int32", dot.lanes)
    with serial(rows) as r:
        store(totals, emit_row_sums(staged, r, dot.steps(inner), dot) - added, r, 0)
    return totals
