"""How much work a kernel call is, from its name and the shapes of its arguments.

Kernels are named ``<operator>[_<fused operators>]_<number>`` (``linear_0``, ``linear_gelu_1``); the
last argument is the result.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from vitq.numerics.attention import QkvShape

Shape = tuple[int, ...]

FAMILIES = {
    "linear": "linear",
    "patch_embed": "linear",
    "attention": "attention",
    "matmul": "attention",
    "normalized_matmul": "attention",
    "shiftmax": "attention",
    "ivit_shiftmax": "attention",
}
"""By prefix of the name; what is not here walks over elements."""
ELEMENTWISE = "elementwise"


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
        """Of the whole tensor."""
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


def operator_of(kernel: str) -> str:
    """The name without its number."""
    return re.sub(r"_\d+$", "", kernel)


def family_of(kernel: str) -> str:
    """``linear``, ``attention`` or ``elementwise``."""
    name = operator_of(kernel)
    matches = [prefix for prefix in FAMILIES if name == prefix or name.startswith(f"{prefix}_")]
    return FAMILIES[max(matches, key=len)] if matches else ELEMENTWISE


def work_of(kernel: str, operands: Sequence[Operand]) -> Work:
    """The work of one call.

    Args:
        kernel: its name.
        operands: all arguments in order, the result last.
    """
    shapes = [operand.shape for operand in operands]
    return Work(_mac(operator_of(kernel), shapes), sum(o.size_bytes for o in operands))


def _mac(name: str, shapes: list[Shape]) -> int:
    first, out = shapes[0], shapes[-1]
    if name.startswith("patch_embed"):
        return prod(first) * out[-1]  # each pixel meets every output channel once
    if name.startswith("linear"):
        return prod(out) * first[-1]
    if name.startswith("attention"):
        return QkvShape.of(first).macs
    if name.startswith(("matmul", "normalized_matmul")):
        return prod(out) * first[-1]
    return 0
