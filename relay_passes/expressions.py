"""What a Relax expression and a function of them are: shapes, types, constants, bindings."""

from functools import cache
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import Op

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError

TAKE = "relax.take"
PAD = "relax.nn.pad"
LAYOUT_OPS = ("relax.reshape", "relax.permute_dims", "relax.strided_slice", TAKE)
"""The layout operators left after `CanonicalizeLayout` that read one tensor; see `is_layout`."""
FLOATS = ("float16", "float32", "float64", "bfloat16")
Expr = Any
"""A Relax expression. TVM's Python classes carry no types that mypy could use."""


@cache
def _kind_of(given: Any) -> Any:
    """Which of four a class of expressions is; TVM's own `isinstance` takes longer than the rest.

    All of an array at once (``[:]``) is read faster than one by one, likewise.
    """
    kinds = (relax.Var, relax.Call, relax.Tuple, relax.TupleGetItem)
    return next((kind for kind in kinds if issubclass(given, kind)), None)


def _kind(expr: Expr) -> Any:
    given: Any = type(expr)  # mypy takes no class for hashable
    return _kind_of(given)


def shape_of(expr: Expr) -> tuple[int, ...]:
    """Read the static shape of a tensor expression."""
    return tuple(int(dim) for dim in expr.ty.shape.values)


def dtype_of(expr: Expr) -> str:
    """Element type of a tensor expression, as NumPy spells it."""
    return str(expr.ty.dtype)


def is_tensor(expr: Expr) -> bool:
    """Whether an expression is a tensor (and not a shape, a tuple or nothing)."""
    return isinstance(getattr(expr, "ty", None), relax.TensorType)


def is_float(expr: Expr) -> bool:
    """Whether an expression is a tensor of floating point values."""
    return is_tensor(expr) and dtype_of(expr) in FLOATS


def is_constant(expr: Expr) -> bool:
    """Whether an expression is a tensor constant."""
    return type(expr).__name__ in ("GenericConst", "Constant")


def constant(value: IntArray | FloatArray, dtype: str | None = None) -> Expr:
    """Make a Relax constant that keeps the array's own type (TVM would narrow float64)."""
    array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    return relax.const(array, dtype or str(array.dtype))


def op_name(expr: Expr) -> str:
    """``relax.add``, ``vitq.linear`` (the function of a ``call_pure_packed``), or nothing."""
    if _kind(expr) is not relax.Call:
        return ""
    op = expr.op
    if not isinstance(op, Op):
        return str(getattr(op, "global_symbol", ""))
    name = op.name
    return str(expr.args[0].global_symbol if name == "relax.call_pure_packed" else name)


def is_layout(expr: Expr, names: tuple[str, ...] = LAYOUT_OPS) -> bool:
    """Whether an expression moves elements of a tensor; a look-up in a table does not."""
    name = op_name(expr)
    return name in names and (name != TAKE or is_constant(expr.args[1]))


def normalize_axis(axis: int, rank: int) -> int:
    """Count an axis from the front."""
    return axis + rank if axis < 0 else axis


def ints(fields: Any) -> tuple[int, ...]:
    """Python integers from a Relax shape, tuple or list of axes."""
    values = getattr(fields, "values", None) or getattr(fields, "fields", None) or fields
    return tuple(int(getattr(value, "value", value)) for value in values)


MAIN = "main"


def bindings_of(function: Expr) -> list[Any]:
    """All bindings of a function in order.

    Args:
        function: a Relax function without control flow.

    Returns:
        Its ``VarBinding`` list.
    """
    found = [binding for block in function.body.blocks for binding in block.bindings[:]]
    if not all(isinstance(binding, relax.VarBinding) for binding in found):
        raise VitqError("the network has dynamic shapes: compile it with fixed input shapes")
    return found


def operands_of(value: Expr) -> list[Expr]:
    """Variables and constants that a binding's value reads."""
    kind = _kind(value)
    if kind is relax.Call:
        return [leaf for arg in value.args[:] for leaf in operands_of(arg)]
    if kind is relax.Tuple:
        return [leaf for field in value.fields[:] for leaf in operands_of(field)]
    if kind is relax.TupleGetItem:
        return operands_of(value.tuple_value)
    return [value] if kind is relax.Var or is_constant(value) else []


def uses_of(function: Expr) -> dict[Expr, list[Any]]:
    """Find the bindings that read each variable, once for each reading, outputs apart."""
    uses: dict[Expr, list[Any]] = {}
    for binding in bindings_of(function):
        for operand in operands_of(binding.value):
            if isinstance(operand, relax.Var):
                uses.setdefault(operand, []).append(binding)
    return uses


def substitute(expr: Expr, mapping: dict[Expr, Expr]) -> Expr:
    """Replace the variables of an expression."""
    kind = _kind(expr)
    if kind is relax.Var:
        return mapping.get(expr, expr)
    if kind is relax.Call:
        args = [substitute(arg, mapping) for arg in expr.args[:]]
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args)
    if kind is relax.Tuple:
        return relax.Tuple([substitute(field, mapping) for field in expr.fields[:]])
    if kind is relax.TupleGetItem:
        return relax.TupleGetItem(substitute(expr.tuple_value, mapping), expr.index)
    return expr
