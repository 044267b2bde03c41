"""Table look-up: `numerics.table`, one load for each code.

A table is arranged so that the low bits of a code's pattern are its index, whatever code comes
first: its length becomes a power of two.
"""

from collections.abc import Mapping, Sequence
from math import prod

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
from vitq.compiler.kernels.cpu.elementwise import for_flat
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.table import by_pattern
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.table import TableParams


def lower_lut(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.lut``: x, table (C, n) or (1, n), params."""
    p = TableParams(*(int(value) for value in constants[2]))
    table = by_pattern(constants[1], p.low)
    inside = prod(operands[0].shape[p.axis + 1 :]) if len(table) > 1 else operands[0].size
    kernel = Kernel(LUT, (operands[0], tensor_of(table)), out, features, inside)
    return KernelCall(kernel, (0, table))


def _lut_body(kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, result: Buffer) -> None:
    """`kernel.spec`: how many neighbouring elements share a table."""
    x_type, table_type = kernel.inputs
    channels, entries = table_type.shape
    source, target = view(x, x_type.flat), view(result, kernel.out.flat)

    def look_up(at: Expr, channel: Expr) -> None:
        code = cast(load(source, at), "int32") & (entries - 1)
        store(target, load(table, channel, code), at)

    if channels == 1:
        for_flat(x_type.size, 1, lambda at, _: look_up(at, 0))
        return
    inside: int = kernel.spec
    if inside == 1:
        with parallel(x_type.size // channels) as row:
            for_chunks(channels, 1, lambda i, _: look_up(row * channels + i, i))
        return
    with parallel(x_type.size // inside) as plane:
        channel = bind(plane % channels)
        for_chunks(inside, 1, lambda i, _: look_up(plane * inside + i, channel))


LUT = Template("lut", _lut_body)
