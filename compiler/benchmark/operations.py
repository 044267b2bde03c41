"""How much work a kernel call is, from its name and the shapes of its arguments.

Kernels are named ``<operator>_<number>`` (``linear_0``, ``linear_gelu_1``); the last argument is
the result. How many products an operator has stands in its record (`relay_passes.dialect`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from vitq.relay_passes.dialect.names import PREFIX
from vitq.relay_passes.dialect.operator import Family, Operator, Shape
from vitq.relay_passes.dialect.registry import OPERATORS


@dataclass(frozen=True)
class Operand:
    """An argument of a kernel.

    Attributes:
        shape: of the tensor.
        itemsize: bytes of an element.
    """

    shape: Shape
    itemsize: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole tensor."""
        return prod(self.shape) * self.itemsize


@dataclass(frozen=True)
class Work:
    """What one call has to do.

    Attributes:
        mac: multiply-accumulate operations of its products, 0 for elementwise kernels.
        moved_bytes: every operand read once, the result written once: no kernel can do with less.
    """

    mac: int
    moved_bytes: int

    @property
    def intensity(self) -> float:
        """Operations (two for each MAC) for each byte."""
        return 2 * self.mac / self.moved_bytes


def operator_of(kernel: str) -> Operator | None:
    """Return the record of what a kernel computes; None for layout that TVM wrote a loop for."""
    return OPERATORS.get(PREFIX + re.sub(r"_\d+$", "", kernel))


def family_of(kernel: str) -> str:
    """``linear``, ``attention`` or ``elementwise``."""
    operator = operator_of(kernel)
    return (Family.ELEMENTWISE if operator is None else operator.family).value


def work_of(kernel: str, operands: Sequence[Operand]) -> Work:
    """Return the work of one call.

    Args:
        kernel: its name.
        operands: all arguments in order, the result last.
    """
    operator = operator_of(kernel)
    mac = 0 if operator is None else operator.macs(operands[0].shape, operands[-1].shape)
    return Work(mac, sum(operand.size_bytes for operand in operands))
