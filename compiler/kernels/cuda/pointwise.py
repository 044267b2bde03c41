"""Pointwise operators without a kernel of their own: one look-up for each code."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitq.compiler.kernels.cuda.elementwise import each_element
from vitq.compiler.kernels.cuda.emit import Buffer, as_word, const, flat, index, put
from vitq.compiler.kernels.cuda.kernel import call_of
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.pointwise import code_table, kernel_name
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect.operator import Operator


def lower_pointwise(
    operator: Operator,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """Any pointwise operator: x, params."""
    table = code_table(operator, operands[0], constants[1], out)
    template = Template(kernel_name(operator), _table_body)
    return call_of(template, operands, (0, table), out, features)


def lowering_of(operator: Operator) -> partial[KernelCall]:
    """`lower_pointwise` of one operator."""
    return partial(lower_pointwise, operator)


def _table_body(kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, out: Buffer) -> None:
    mask = const(kernel.inputs[1].size - 1)
    with each_element(kernel.out.size) as at:
        put(flat(out), at, flat(table)[index(as_word(flat(x)[at]) & mask)])
