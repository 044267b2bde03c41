"""Values in a traced program that no picture decides: masks, positions, weights made of weights.

    arange(17) -> add 0 -> view -> ge 0 -> expand (N, 1, 17, 17)    all true: attention sees it all

They are computed while the program is walked, in its order (so that what is written in place is
seen), with `BATCH` for the batch size; what depends on it is never stored, only looked at. Random
operators are none of them.
"""

from collections.abc import Mapping
from typing import Any

import torch

BATCH = 3
"""Stands for the batch size; no other size of a model is likely to depend on it."""


class FixedValues:
    """What is known of the nodes so far.

    Args:
        stored: parameters, buffers and constants by the name of their node; may grow.
    """

    def __init__(self, stored: Mapping[str, torch.Tensor]) -> None:
        self._stored = stored
        self._values: dict[str, Any] = {}
        self._aside: set[str] = set()

    def visit(self, node: Any, is_handled: bool) -> bool:
        """Compute a node if it is fixed.

        Args:
            node: of the program; all before it were visited.
            is_handled: whether the graph has an operator for it.

        Returns:
            Whether the node is left out of the graph: a fixed one that is no float tensor, has no
            operator, or is made of such. Its value is there for whoever uses it.
        """
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt | int):
            self._values[node.name] = _at_batch(size)
            return True
        inputs = [arg.name for arg in node.all_input_nodes]
        if not all(name in self._values or name in self._stored for name in inputs):
            return False
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return False
        try:
            with torch.no_grad():
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self._value)
                value = node.target(*args, **kwargs)
        except Exception:  # an operator that cannot run here is converted, or refused by name
            return False
        self._values[node.name] = value
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        if is_float and is_handled and not self._aside.intersection(inputs):
            return False
        self._aside.add(node.name)
        return True

    def _value(self, node: Any) -> Any:
        if node.name not in self._values:
            self._values[node.name] = self._stored[node.name].detach().clone()
        return self._values[node.name]

    def is_aside(self, node: Any) -> bool:
        """Whether a node was left out of the graph."""
        return node.name in self._aside

    def set_aside(self, node: Any) -> bool:
        """Leave a node out of the graph after all, if its value can be stored; tell whether."""
        if self.weight(node) is None:
            return False
        self._aside.add(node.name)
        return True

    def weight(self, node: Any) -> torch.Tensor | None:
        """Return a fixed tensor of floats that does not depend on the batch size."""
        value, shape = self._values.get(node.name), getattr(node.meta.get("val"), "shape", ())
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return None
        return value if all(isinstance(size, int) for size in shape) else None

    def is_all(self, node: Any, wanted: float) -> bool:
        """Whether a node is fixed and has this value everywhere; of truths, 1 is true."""
        value = self._values.get(getattr(node, "name", ""))
        return isinstance(value, torch.Tensor) and bool((value == wanted).all())

    def hides_nothing(self, mask: Any) -> bool:
        """Whether an attention mask is fixed and lets every position see all: true, or 0 added."""
        value = self._values.get(mask.name)
        if not isinstance(value, torch.Tensor):
            return False
        return self.is_all(mask, 1 if value.dtype == torch.bool else 0)


def _at_batch(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))
