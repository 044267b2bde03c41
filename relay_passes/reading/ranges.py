"""The smallest and largest value that each integer tensor can hold."""

from typing import Any

import numpy as np
from tvm import IRModule, relax

from vitq.numerics.ivit import CODE_MAX as IVIT_CODE_MAX
from vitq.numerics.matmul import weight_bounds
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    MAIN,
    Expr,
    bindings_of,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
)

Interval = tuple[int, int]


def constant_range(value: Any) -> Interval:
    """The extremes of a constant."""
    return int(value.min()), int(value.max())


def type_range(expr: Expr) -> Interval:
    """What the storage type allows."""
    info = np.iinfo(dtype_of(expr))
    return int(info.min), int(info.max)


def magnitude(interval: Interval, zero_point: int = 0) -> int:
    """The largest ``|x - zero_point|``."""
    return max(abs(interval[0] - zero_point), abs(interval[1] - zero_point))


def gemm_bounds(call: Expr, x: Interval) -> Interval:
    """All accumulators and partial sums of ``vitq.linear`` or ``vitq.patch_embed``."""
    weight, bias = dialect.array(call, 1), dialect.array(call, 2)
    return weight_bounds(weight.reshape(weight.shape[0], -1), bias.astype(np.int64), *x)


def matmul_bound(call: Expr, a: Interval, b: Interval) -> int:
    """The largest magnitude of a ``vitq.matmul`` accumulator."""
    a_zero_point, b_zero_point = dialect.scalars(call)
    terms = shape_of(dialect.operands(call)[0])[-1]
    return terms * magnitude(a, a_zero_point) * magnitude(b, b_zero_point)


class Ranges:
    """Intervals of the tensors of one function, filled from front to back."""

    def __init__(self) -> None:
        """Begin empty."""
        self._known: dict[Expr, Interval] = {}

    def of(self, expr: Expr) -> Interval:
        """The interval of a variable or constant; its type's where nothing is known."""
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
        """The interval of a call's result, where it is narrower than its type."""
        name = op_name(call)
        if name == dialect.MATMUL:
            a, b, _ = dialect.operands(call)
            bound = matmul_bound(call, self.of(a), self.of(b))
            return -bound, bound
        if name == dialect.SHIFTMAX_CODES:
            return 0, 255
        if name == dialect.IVIT_SHIFTMAX:
            return 0, IVIT_CODE_MAX
        if name == dialect.LUT:
            return constant_range(dialect.array(call, 1))
        if name in dialect.INTEGER_OPS:  # all others end their params with (qmin, qmax)
            return dialect.scalars(call)[-2:]  # type: ignore[return-value]
        if name == "relax.concat":
            fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
            parts = [self.of(field) for field in fields]
            return (min(p[0] for p in parts), max(p[1] for p in parts)) if parts else None
        if name.startswith("relax."):
            return self.of(call.args[0])
        return None


def ranges_of(mod: IRModule) -> Ranges:
    """The intervals of all tensors of ``main``."""
    ranges = Ranges()
    for binding in bindings_of(mod[MAIN]):
        ranges.record(binding)
    return ranges
