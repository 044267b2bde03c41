"""One operator of a file: its attributes and operands, and the table of what computes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vitq.compiler.foreign.network.values import Host, Value, is_host, to_tensor
from vitq.numerics.errors import VitqError

Operator = Callable[["Call"], Any]
OPERATORS: dict[str, Operator] = {}
"""By name; of another domain than ONNX's own as ``com.microsoft.Gelu``."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Compute the operators of these names."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


@dataclass(frozen=True)
class Call:
    """What an operator reads.

    Attributes:
        op: its type.
        attributes: as Python's values.
        operands: in order; None for one that is left out.
        arrays: values of those that are constants of the file, by their number.
        outputs: how many results are read.
        opset: of the file, for operators whose meaning changed.
        batch: the number of pictures now.
        batch_of_file: that the file is made for; 0 if for any.
    """

    op: str
    attributes: Mapping[str, Any]
    operands: list[Value | None]
    arrays: Mapping[int, Host]
    outputs: int
    opset: int
    batch: Any
    batch_of_file: int

    def has(self, index: int) -> bool:
        """Whether an operand is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def value(self, index: int) -> Value:
        """Return an operand.

        Raises:
            VitqError: it is left out.
        """
        if not self.has(index):
            raise VitqError(f"its operand {index} is missing")
        found = self.operands[index]
        assert found is not None
        return found

    def x(self, index: int = 0) -> torch.Tensor:
        """Return an operand as a tensor."""
        return to_tensor(self.value(index))

    def host(self, index: int) -> Host:
        """Return an operand that says a shape, axes, or a number.

        Raises:
            VitqError: it depends on what is in the pictures.
        """
        if index in self.arrays:
            return self.arrays[index]
        value = self.value(index)
        if not isinstance(value, np.ndarray):
            raise VitqError(f"its operand {index} depends on the pictures: it must be a constant")
        return value

    def number(self, index: int) -> float | int | None:
        """Return an operand that is one constant number; None of anything else."""
        found: Any = self.arrays.get(index)
        if found is None and self.has(index) and is_host(self.operands[index]):
            found = self.operands[index]
        if found is None or found.size != 1 or found.dtype == object:
            return None
        number: float | int = found.reshape(-1)[0].item()
        return number

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def axes(self, index: int = 1) -> list[int] | None:
        """Return axes: an attribute of older opsets, an operand of newer ones."""
        if self.has(index):
            return [int(axis) for axis in self.host(index).reshape(-1)]
        found = self.get("axes")
        return None if found is None else [int(axis) for axis in found]
