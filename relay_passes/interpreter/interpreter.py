"""Runs a module on NumPy: integer operators through ``numerics/``, the rest as Relax defines it.

It is the second opinion on every pass (before and after must give the same integers) and on
networks whose quantized graph this project did not write. Exact; no kernels, no TVM runtime.
"""

import numpy as np
from tvm import IRModule, relax

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.attention import AttentionParams, int_attention
from vitq.numerics.dyadic import Dyadic
from vitq.numerics.errors import VitqError
from vitq.numerics.int_layernorm import LayerNormParams, int_layernorm
from vitq.numerics.ivit import IvitGeluParams, IvitSoftmaxParams, ivit_shiftgelu, ivit_shiftmax
from vitq.numerics.linear import GEMM_OPERANDS, int_linear, int_patch_embed
from vitq.numerics.matmul import centred_matmul
from vitq.numerics.nonlinear import SoftmaxParams, int_softmax
from vitq.numerics.pooling import MeanParams, int_mean
from vitq.numerics.requantize import RequantizeParams, int_requantize
from vitq.numerics.shiftgelu import GeluParams, shiftgelu
from vitq.numerics.shiftmax import (
    CodeParams,
    NormalizeParams,
    normalized_matmul,
    shiftmax_codes,
)
from vitq.numerics.table import int_lut
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    DEQUANTIZE,
    MAIN,
    QUANTIZE,
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


def _layer(x: Array, call: Expr) -> Array:
    return int_linear(x, dialect.linear_integers(call))


def _linear_add(call: Expr, args: list[Array]) -> Array:
    residual = args[GEMM_OPERANDS]
    return int_add(_layer(args[0], call), residual, AddParams(*dialect.scalars(call)))


def _matmul(call: Expr, args: list[Array]) -> Array:
    a_zero_point, b_zero_point = dialect.scalars(call)
    return centred_matmul(args[0], np.swapaxes(args[1], -1, -2), a_zero_point, b_zero_point)


def _requantize(call: Expr, args: list[Array]) -> Array:
    params = RequantizeParams(Dyadic(args[1], args[2]), *dialect.scalars(call))
    return int_requantize(args[0], params)


def _normalized_matmul(call: Expr, args: list[Array]) -> Array:
    zero_point, *norm = dialect.scalars(call)
    return normalized_matmul(args[0], args[1], zero_point, NormalizeParams(*norm))


def _layernorm(call: Expr, args: list[Array]) -> Array:
    return int_layernorm(args[0], LayerNormParams(args[1], args[2], *dialect.scalars(call)))


INTEGER: dict[str, Evaluator] = {
    dialect.PATCH_EMBED: lambda call, a: int_patch_embed(a[0], dialect.linear_integers(call)),
    dialect.LINEAR: lambda call, a: _layer(a[0], call),
    dialect.LINEAR_ADD: _linear_add,
    dialect.LINEAR_GELU: lambda call, a: shiftgelu(
        _layer(a[0], call), GeluParams(*dialect.scalars(call))
    ),
    dialect.MATMUL: _matmul,
    dialect.REQUANTIZE: _requantize,
    dialect.SHIFTMAX_CODES: lambda call, a: shiftmax_codes(
        a[0], CodeParams(*dialect.scalars(call))
    ),
    dialect.SHIFTMAX: lambda call, a: int_softmax(
        a[0], SoftmaxParams.from_scalars(dialect.scalars(call))
    ),
    dialect.IVIT_SHIFTMAX: lambda call, a: ivit_shiftmax(
        a[0], IvitSoftmaxParams(*dialect.scalars(call))
    ),
    dialect.NORMALIZED_MATMUL: _normalized_matmul,
    dialect.SHIFTGELU: lambda call, a: shiftgelu(a[0], GeluParams(*dialect.scalars(call))),
    dialect.IVIT_SHIFTGELU: lambda call, a: ivit_shiftgelu(
        a[0], IvitGeluParams(*dialect.scalars(call))
    ),
    dialect.LAYERNORM: _layernorm,
    dialect.ADD: lambda call, a: int_add(a[0], a[1], AddParams(*dialect.scalars(call))),
    dialect.MEAN: lambda call, a: int_mean(a[0], MeanParams(*dialect.scalars(call)), axis=1),
    dialect.LUT: lambda _, a: int_lut(*a),
    dialect.ATTENTION: lambda call, a: int_attention(a[0], AttentionParams(*dialect.scalars(call))),
    DEQUANTIZE: dequantize,
    QUANTIZE: quantize,
}

EVALUATORS = LAYOUT | ELEMENTWISE | FLOAT | INTEGER


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
    """The array, or tuple of arrays, of one operand; None where it holds no tensor."""
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
            if op_name(value) in INTEGER:
                args = args[1:]
            values[binding.var] = evaluate(value, args)
        else:
            values[binding.var] = _argument(value, values)
    result = _argument(function.body.body, values)
    return list(result) if isinstance(result, tuple) else [result]
