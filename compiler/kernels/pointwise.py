"""A pointwise operator as a table: at compile time every code goes through its record once.

This is how an operator that looks at one code at a time runs without a kernel of its own: the
kernel looks codes up, whatever the operator computes. `compiler.kernels.cpu.pointwise` and
`compiler.kernels.cuda.pointwise` hold the two kernels.
"""

import numpy as np

from vitq.compiler.kernels.tensor import TensorType
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect.names import PREFIX
from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.registry import OPERATORS

LARGEST_BITS = 16


def pointwise_operators() -> dict[str, Operator]:
    """Return the records of all operators that a table can stand for, by name."""
    return {name: operator for name, operator in OPERATORS.items() if operator.is_pointwise}


def kernel_name(operator: Operator) -> str:
    """Return what the operator's kernels are called."""
    return operator.name.removeprefix(PREFIX)


def code_table(operator: Operator, x: TensorType, params: IntArray, out: TensorType) -> IntArray:
    """All results of a pointwise operator.

    Args:
        operator: its record.
        x: type of the codes, 16 bits at most.
        params: the operand of scalars.
        out: type of the results.

    Returns:
        (n,) of the result's type, indexed by a code's bits as an unsigned number.

    Raises:
        VitqError: for wider codes.
    """
    info = np.iinfo(x.dtype)
    if info.bits > LARGEST_BITS:
        raise VitqError(f"{operator.name}: {x.dtype} codes are too many for a table of results")
    patterns = np.arange(1 << info.bits, dtype=f"uint{info.bits}")
    results: IntArray = operator.run([patterns.view(x.dtype), params]).astype(out.dtype)
    return results
