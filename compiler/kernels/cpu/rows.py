"""``vitq.gather_rows``: rows are copied to where a table says."""

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray

MOST_TOGETHER = 64
"""Rows of one parallel iteration."""
WORD_BYTES = 4


def lower_gather_rows(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.gather_rows``: x (B, R, C), rows (M,), params -> (B, M, C)."""
    rows, fill = constants[1].astype(np.int32), constants[2].astype(np.int64)
    inputs = (operands[0], tensor_of(rows), tensor_of(fill))
    is_whole = bool(rows.min() >= 0)
    return KernelCall(Kernel(GATHER_ROWS, inputs, out, features, is_whole), (0, rows, fill))


def _body(
    kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, fill: Buffer, result: Buffer
) -> None:
    _, rows, channels = kernel.inputs[0].shape
    batch, moved, _ = kernel.out.shape
    source, target = view(x, kernel.inputs[0].rows), view(result, kernel.out.rows)
    dtype = kernel.out.dtype
    lanes = kernel.features.lanes * WORD_BYTES // np.dtype(dtype).itemsize
    together = max(n for n in range(1, MOST_TOGETHER + 1) if moved % n == 0)
    with parallel(batch * moved // together) as block, serial(together) as i:
        row = bind(block * together + i)
        place = bind(load(table, row % moved))
        at = bind(row // moved * rows + tirx.max(place, 0))

        def copy(column: Expr, n: int) -> None:
            value = load(source, at, column, lanes=n)
            if not kernel.spec:
                other = splat(cast(load(fill, 0), dtype), n)
                value = tirx.Select(splat(place, n) >= splat(place * 0, n), value, other)
            store(target, value, row, column)

        for_chunks(channels, min(lanes, channels), copy)


GATHER_ROWS = Template("gather_rows", _body)
