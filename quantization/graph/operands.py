"""What is known while a program is walked, and what `quantization.graph.spellings` ask of it.

An argument of an operator is an `Operand` of the graph, or fixed (`quantization.graph.fixed`): then
it becomes a constant where it is read, repeated for each picture if the model did so.
"""

from typing import Any

import numpy as np
import torch

from vitq.quantization.graph.builder import Builder, Operand, Refusal
from vitq.quantization.graph.exporting import shape_at_one
from vitq.quantization.graph.fixed import FixedValues
from vitq.quantization.graph.graph import OpKind

# A torch.fx.Node whose arguments are typed as a union of everything: each handler knows its own.
FxNode = Any


def name_of(node: FxNode) -> str:
    """Return an operator's name without overload: ``add`` of ``aten.add.Tensor``."""
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


class Walk:
    """What is known so far.

    Attributes:
        build: the nodes so far.
        fixed: what no picture decides.
        pending: operators that are one only together with what reads them, as a norm that is
            divided by; what spellings know of them.
        composed: operators of a function in pieces: None for one inside, what makes the result and
            what it needs for the last.
    """

    def __init__(self) -> None:
        self.build = Builder()
        self.fixed = FixedValues()
        self.pending: dict[FxNode, tuple[Any, ...]] = {}
        self.composed: dict[FxNode, Any] = {}
        self._operands: dict[FxNode, Operand] = {}
        self._keys: dict[FxNode, str] = {}
        self._constants: dict[FxNode, Operand] = {}

    def replace(self, arg: FxNode, operand: Operand) -> None:
        """Let an argument be another operand from here on; what was known of it is no more."""
        self.fixed.forget(arg)
        self._constants.pop(arg, None)
        self._operands[arg] = operand

    def x(self, arg: Any) -> Operand:
        """Return the operand that an argument is; a fixed one becomes a constant.

        Raises:
            Refusal: if it cannot be one.
        """
        if not isinstance(arg, torch.fx.Node):
            return self.build.constant(arg)
        if arg in self._operands:
            return self._operands[arg]
        if arg in self.pending:
            raise Refusal(f"{name_of(arg)} in this form")
        if not self.fixed.is_fixed(arg):
            raise Refusal(f"{name_of(arg)} in this form")
        self._operands[arg] = self._for_each_picture(arg)
        return self._operands[arg]

    def alike(self, arg: Any) -> Operand:
        """Return an operand that is broadcast: a fixed one is not repeated for each picture."""
        if not isinstance(arg, torch.fx.Node) or not self.fixed.is_fixed(arg):
            return self.x(arg)
        shape, axis = shape_at_one(arg.meta["val"])
        return self.x(arg) if axis is not None and shape[axis] != 1 else self._constant(arg)

    def _constant(self, arg: FxNode) -> Operand:
        """Return the constant node of a fixed argument."""
        if arg not in self._constants:
            base, self.build.base = self.build.base, arg.name
            key = self.key(arg)
            value = self.build.tensors[key]
            params = {"value": key}
            x = self.build.node(OpKind.CONSTANT, (), value.shape, None, None, params)
            self._constants[arg] = self.build.rename(x, arg.name)
            self.build.base = base
        return self._constants[arg]

    def _for_each_picture(self, arg: FxNode) -> Operand:
        """Return the constant of a fixed argument, repeated along the batch if it is."""
        _, axis = shape_at_one(arg.meta["val"])
        if axis is None:
            return self._constant(arg)
        source, base = self._repeated(arg), self.build.base
        one = self._constant(source)
        self.build.base = arg.name
        x = self.each(one, axis)
        self.build.base = base
        return self.build.rename(x, arg.name)

    def each(self, x: Operand, axis: int | None) -> Operand:
        """Repeat a constant for each picture along an axis; not at all if that is None."""
        if axis is None:
            return x
        if x.shape[axis] == 1:
            return self.build.expand(x, x.shape, axis)
        wide = (*x.shape[:axis], 1, *x.shape[axis:])
        repeated = self.build.expand(self.build.reshape(x, wide, None), wide, axis)
        return self.build.reshape(repeated, x.shape, axis)

    def _repeated(self, arg: FxNode) -> FxNode:
        """Return what ``expand`` repeats along the batch alone, or the node itself."""
        if name_of(arg) == "expand" and isinstance(arg.args[0], torch.fx.Node):
            source = arg.args[0]
            shape = shape_at_one(source.meta["val"])
            if shape == (shape_at_one(arg.meta["val"])[0], None):
                return source
        return arg

    def key(self, arg: Any) -> str:
        """Return the key of a fixed tensor, copied to float32 NumPy on first use.

        Raises:
            Refusal: if it depends on the picture.
        """
        if not self.fixed.is_fixed(arg):
            raise Refusal("a weight computed at run time")
        value = self.fixed.at_one(arg)
        if value is None:
            raise Refusal("a constant that differs between the pictures of a batch")
        key = self._keys.setdefault(arg, arg.name)
        if key not in self.build.tensors:
            values = value.detach().to(torch.float32).contiguous().numpy()
            self.build.tensors[key] = np.array(np.atleast_1d(values))
        return key

    def tensor(self, arg: Any) -> torch.Tensor | None:
        """Return a fixed tensor for one picture, or a number as one; None if it is no such."""
        if isinstance(arg, int | float):
            return torch.tensor(float(arg))
        if not isinstance(arg, torch.fx.Node) or not self.fixed.is_fixed(arg):
            return None
        value = self.fixed.value(arg)
        if isinstance(value, int | float):
            return torch.tensor(float(value))
        return self.fixed.at_one(arg)

    def plain(self, arg: Any) -> Any:
        """Return arguments that are no tensors: sizes of the model become numbers."""
        if isinstance(arg, list | tuple):
            return [self.plain(item) for item in arg]
        return self.fixed.value(arg)
