"""``vitq.offset``: a bias or mask is added to scores, row by row."""

from collections.abc import Mapping, Sequence

import numpy as np

from vitq.compiler.kernels.broadcasting import broadcast_index
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    for_chunks,
    load,
    parallel,
    store,
    view,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect import names


def lower_offset(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.offset``: x (..., N), offset broadcastable to x -> i32; whole rows are stored."""
    offset = constants[1]
    offset = np.ascontiguousarray(np.broadcast_to(offset, (*offset.shape[:-1], out.shape[-1])))
    inputs = (operands[0], tensor_of(offset))
    return KernelCall(Kernel(OFFSET, inputs, out, features), (0, offset))


def _body(kernel: Kernel, schedule: Schedule, x: Buffer, offset: Buffer, result: Buffer) -> None:
    x_type, offset_type = kernel.inputs
    place = broadcast_index(names.OFFSET, x_type.shape[:-1], offset_type.shape[:-1])
    rows, columns = x_type.rows.shape
    source, target = view(x, x_type.rows), view(result, kernel.out.rows)
    added = view(offset, offset_type.rows)
    with parallel(rows) as r:
        other = bind(place(r))

        def emit(i: Expr, lanes: int) -> None:
            value = cast(load(source, r, i, lanes=lanes), "int32")
            store(target, value + load(added, other, i, lanes=lanes), r, i)

        for_chunks(columns, kernel.features.lanes, emit)


OFFSET = Template("offset", _body)
