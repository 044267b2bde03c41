"""Runs a module on NumPy: integer operators through ``numerics/``, the rest as Relax defines it.

It is the second opinion on every pass (before and after must give the same integers) and on
networks whose quantized graph this project did not write. Exact; no kernels, no TVM runtime.
"""

import numpy as np
from tvm import IRModule, relax

from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect.names import DEQUANTIZE, QUANTIZE
from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.registry import OPERATORS
from vitq.relay_passes.expressions import (
    MAIN,
    Expr,
    bindings_of,
    dtype_of,
    is_constant,
    is_tensor,
    op_name,
    shape_of,
)
from vitq.relay_passes.reading.relax_numpy import (
    ELEMENTWISE,
    FLOAT,
    LAYOUT,
    Array,
    Evaluator,
    dequantize,
    quantize,
)


def _by_record(operator: Operator) -> Evaluator:
    """Return the arithmetic contract of an integer operator."""
    return lambda _, arrays: operator.run(arrays)


PACKED: dict[str, Evaluator] = {
    **{name: _by_record(operator) for name, operator in OPERATORS.items()},
    DEQUANTIZE: dequantize,
    QUANTIZE: quantize,
}
"""Calls of packed functions; their first argument is the function."""

EVALUATORS = LAYOUT | ELEMENTWISE | FLOAT | PACKED


def evaluate(call: Expr, args: list[Array]) -> Array:
    """One operator on NumPy arrays.

    Args:
        call: a Relax call, for its attributes and result type.
        args: its tensor operands; a tuple operand is a tuple of arrays.

    Returns:
        The result in the call's element type; floats stay float64 inside of a network.

    Raises:
        VitqError: for an operator that is not known here.
    """
    evaluator = EVALUATORS.get(op_name(call))
    if evaluator is None:
        raise VitqError(f"the interpreter does not know {op_name(call)}")
    result = evaluator(call, args)
    if not is_tensor(call) or dtype_of(call).startswith("float"):
        return result
    return np.asarray(result).astype(dtype_of(call))


def _argument(arg: Expr, values: dict[Expr, Array]) -> Array:
    """Return the array, or tuple of arrays, of one operand; None where it holds no tensor."""
    if is_constant(arg):
        return arg.value.numpy()
    if isinstance(arg, relax.Tuple):
        return tuple(_argument(field, values) for field in arg.fields)
    if isinstance(arg, relax.TupleGetItem):
        return _argument(arg.tuple_value, values)[arg.index]
    return values.get(arg) if isinstance(arg, relax.Var) else None


def interpret(mod: IRModule, inputs: list[Array]) -> list[Array]:
    """Run ``main``.

    Args:
        mod: a static-shape module, before, between or after the passes.
        inputs: one array for each parameter.

    Returns:
        One array for each result. Float results are float64.
    """
    function = mod[MAIN]
    values: dict[Expr, Array] = {}
    for param, value in zip(function.params, inputs, strict=True):
        if value.shape != shape_of(param) or str(value.dtype) != dtype_of(param):
            raise VitqError(f"{param.name} must be {dtype_of(param)} of shape {shape_of(param)}")
        values[param] = value
    for binding in bindings_of(function):
        value = binding.value
        if isinstance(value, relax.Call):
            args = [_argument(arg, values) for arg in value.args]
            if op_name(value) in PACKED:
                args = args[1:]
            values[binding.var] = evaluate(value, args)
        else:
            values[binding.var] = _argument(value, values)
    result = _argument(function.body.body, values)
    return list(result) if isinstance(result, tuple) else [result]
