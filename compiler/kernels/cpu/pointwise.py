"""Pointwise operators without a kernel of their own: one look-up for each code."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    cast,
    for_chunks,
    load,
    parallel,
    store,
    view,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.pointwise import code_table, kernel_name
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect.operator import Operator


def lower_pointwise(
    operator: Operator,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """Any pointwise operator: x, params."""
    x = operands[0]
    table = code_table(operator, x, constants[1], out)
    template = Template(kernel_name(operator), _table_body)
    return KernelCall(Kernel(template, (x, tensor_of(table)), out, features), (0, table))


def lowering_of(operator: Operator) -> partial[KernelCall]:
    """`lower_pointwise` of one operator."""
    return partial(lower_pointwise, operator)


def _table_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, result: Buffer
) -> None:
    rows, columns = kernel.inputs[0].rows.shape
    source, target = view(x, kernel.inputs[0].flat), view(result, kernel.out.flat)
    mask = kernel.inputs[1].size - 1
    with parallel(rows) as row:

        def emit(column: Expr, lanes: int) -> None:
            del lanes
            code = cast(load(source, row * columns + column), "int32") & mask
            store(target, load(table, code), row * columns + column)

        for_chunks(columns, 1, emit)
