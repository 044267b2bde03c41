"""The smallest and largest value that each integer tensor can hold."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tvm import IRModule, relax

from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect.operator import Interval, Operand
from vitq.relay_passes.expressions import (
    MAIN,
    PAD,
    Expr,
    bindings_of,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
)


def constant_range(value: Any) -> Interval:
    """Return the extremes of a constant."""
    return int(value.min()), int(value.max())


def type_range(expr: Expr) -> Interval:
    """Return what the storage type allows."""
    info = np.iinfo(dtype_of(expr))
    return int(info.min), int(info.max)


class Ranges:
    """Intervals of the tensors of one function, filled from front to back."""

    def __init__(self) -> None:
        """Begin empty."""
        self._known: dict[Expr, Interval] = {}

    def of(self, expr: Expr) -> Interval:
        """Return the interval of a variable or constant; its type's where nothing is known."""
        if is_constant(expr):
            return constant_range(expr.value.numpy())
        return self._known.get(expr) or type_range(expr)

    def record(self, binding: Any) -> None:
        """Derive a binding's interval from its operands'."""
        value = binding.value
        if isinstance(value, relax.Var):
            self._known[binding.var] = self.of(value)
        elif isinstance(value, relax.Call):
            interval = self._derive(value)
            if interval is not None:
                self._known[binding.var] = interval

    def _derive(self, call: Expr) -> Interval | None:
        """Return the interval of a call's result, where it is narrower than its type."""
        if dialect.is_dialect(call):
            return dialect.record_of(call).codes(KnownOperands(call, self), dialect.params_of(call))
        name = op_name(call)
        if name == "relax.concat":
            (joined,) = call.args
            fields = joined.fields if isinstance(joined, relax.Tuple) else []
            parts = [self.of(field) for field in fields]
            return (min(p[0] for p in parts), max(p[1] for p in parts)) if parts else None
        if name == PAD:
            (low, high), zero = self.of(call.args[0]), int(call.attrs.pad_value)
            return min(low, zero), max(high, zero)
        if name.startswith("relax."):
            return self.of(call.args[0])
        return None


class KnownOperands(Mapping[str, Operand]):
    """What is known of a dialect call's operands, by the names of its record."""

    def __init__(self, call: Expr, ranges: Ranges) -> None:
        """Read nothing yet: a rule looks at few operands."""
        self._exprs = dict(
            zip(dialect.record_of(call).operands, dialect.operands(call), strict=True)
        )
        self._ranges = ranges

    def __getitem__(self, name: str) -> Operand:
        """Shape, codes and value of one operand."""
        expr = self._exprs[name]
        array = expr.value.numpy() if is_constant(expr) else None
        return Operand(shape_of(expr), self._ranges.of(expr), array)

    def __iter__(self) -> Iterator[str]:
        """All names in order."""
        return iter(self._exprs)

    def __len__(self) -> int:
        """How many operands."""
        return len(self._exprs)


def ranges_of(mod: IRModule) -> Ranges:
    """Return the intervals of all tensors of ``main``."""
    ranges = Ranges()
    for binding in bindings_of(mod[MAIN]):
        ranges.record(binding)
    return ranges
