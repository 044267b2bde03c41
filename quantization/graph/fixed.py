"""Values in a traced program that no picture decides: masks, positions, weights made of weights.

    arange(17) -> add 0 -> view -> ge 0 -> expand (N, 1, 17, 17)    all true: attention sees it all

They are computed while the program is walked, in its order (so that what is written in place is
seen), with `BATCH` for the batch size. Random operators are none of them. Who reads one gets its
value: at batch 1, if it grows with the batch and is the same for each picture.
"""

from collections.abc import Callable
from typing import Any

import torch

from vitq.quantization.graph.exporting import shape_at_one

BATCH = 3
"""Stands for the batch size; no other size of a model is likely to depend on it."""


class FixedValues:
    """What is known of the program's nodes so far."""

    def __init__(self) -> None:
        self._stored: dict[Any, torch.Tensor] = {}
        self._values: dict[Any, Any] = {}

    def store(self, node: Any, tensor: torch.Tensor) -> None:
        """Give the value of a parameter, buffer or constant."""
        self._stored[node] = tensor

    def bind(self, node: Any, value: Any) -> None:
        """Give the value of any other node."""
        self._values[node] = value

    def forget(self, node: Any) -> None:
        """Let a node be none that is fixed: something of the picture was written into it."""
        self._values.pop(node, None)
        self._stored.pop(node, None)

    def visit(self, node: Any) -> bool:
        """Compute a node if it is fixed, and tell whether it is.

        Args:
            node: of the program; all before it were visited.
        """
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt | int):
            self._values[node] = _at_batch(size)
            return True
        model = _model_of(node)
        if not all(self.is_fixed(arg) for arg in node.all_input_nodes if arg is not model):
            return False
        if _is_random(node):
            return False
        try:
            with torch.no_grad():
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self._operand(model))
                self._values[node] = node.target(*args, **kwargs)
        except Exception:  # an operator that cannot run here is converted, or refused by name
            return False
        return True

    def _operand(self, model: Any) -> Callable[[Any], Any]:
        """Return what gives an argument's value; of `model` only type and size count."""

        def read(node: Any) -> Any:
            if node is not model or self.is_fixed(node):
                return self.value(node)
            val = node.meta["val"]
            return torch.empty([_at_batch(size) for size in val.shape], dtype=val.dtype)

        return read

    def size(self, extent: Any) -> int:
        """Return an extent of a tensor of the program, with `BATCH` pictures."""
        return _at_batch(extent)

    def is_fixed(self, node: Any) -> bool:
        """Whether an argument is known: a stored tensor, a computed value, or no node at all."""
        return not isinstance(node, torch.fx.Node) or node in self._values or node in self._stored

    def value(self, node: Any) -> Any:
        """Return what a fixed argument is, with `BATCH` pictures."""
        if not isinstance(node, torch.fx.Node):
            return node
        if node not in self._values:
            self._values[node] = self._stored[node].detach().clone()
        return self._values[node]

    def at_one(self, node: Any) -> torch.Tensor | None:
        """Return a fixed tensor for one picture.

        Args:
            node: fixed.

        Returns:
            It with the axis that grows with the batch cut to one picture's part, or None if it is
            no tensor or the pictures' parts differ.
        """
        value = self.value(node)
        if not isinstance(value, torch.Tensor):
            return None
        shape, axis = shape_at_one(node.meta["val"])
        if axis is None:
            return value
        parts = value.unflatten(axis, (BATCH, shape[axis]))
        first = parts.narrow(axis, 0, 1)
        return first.squeeze(axis) if torch.equal(parts, first.expand_as(parts)) else None

    def is_all(self, node: Any, wanted: float) -> bool:
        """Whether a node is fixed and has this value everywhere; of truths, 1 is true."""
        if not isinstance(node, torch.fx.Node) or not self.is_fixed(node):
            return False
        value = self.value(node)
        return isinstance(value, torch.Tensor) and bool((value == wanted).all())


def _model_of(node: Any) -> Any:
    """Return the tensor that a new one is made like, whatever it holds; None of others."""
    name = str(node.target).split(".")[-2:][0]
    is_like = name.startswith("new_") or name.endswith("_like")
    return node.args[0] if is_like and node.args and not _is_random(node) else None


def _is_random(node: Any) -> bool:
    """Whether an operator draws numbers; a dropout that is off does not."""
    is_off = "dropout" in str(node.target) and not all(node.args[1:3])
    return not is_off and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _at_batch(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))
