"""Runs a module on NumPy: integer operators through ``numerics/``, the rest as Relax defines it.

It is the second opinion on every pass (before and after must give the same integers) and on
networks whose quantized graph this project did not write. Exact; no kernels, no TVM runtime.
"""

import numpy as np
from tvm import IRModule, relax

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.dyadic import Dyadic, rescale
from vitq.numerics.errors import VitqError
from vitq.numerics.int_layernorm import LayerNormParams, int_layernorm
from vitq.numerics.ivit import IvitGeluParams, IvitSoftmaxParams, ivit_shiftgelu, ivit_shiftmax
from vitq.numerics.matmul import int_matmul
from vitq.numerics.shiftgelu import GeluParams, shiftgelu
from vitq.numerics.shiftmax import (
    CodeParams,
    NormalizeParams,
    ShiftmaxParams,
    normalized_matmul,
    shiftmax,
    shiftmax_codes,
)
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


def _gemm(x: Array, call: Expr) -> Array:
    """The shared part of linear and patch_embed, after patches became rows."""
    weight, bias, multiplier, shift, zero_point = (dialect.array(call, i) for i in range(1, 6))
    acc = int_matmul(x, weight.reshape(weight.shape[0], -1).T) + bias.astype(np.int64)
    limits = dialect.gemm_limits(call)
    return np.clip(rescale(acc, Dyadic(multiplier, shift)) + zero_point, *limits)


def _linear_add(call: Expr, args: list[Array]) -> Array:
    residual = args[dialect.GEMM_OPERANDS]
    return int_add(_gemm(args[0], call), residual, AddParams(*dialect.scalars(call)))


def _patch_embed(call: Expr, args: list[Array]) -> Array:
    pixels, patch = args[0], args[1].shape[-1]
    batch, channels, height, width = pixels.shape
    tiles = pixels.reshape(batch, channels, height // patch, patch, width // patch, patch)
    rows = tiles.transpose(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)
    return _gemm(rows, call)


def _matmul(call: Expr, args: list[Array]) -> Array:
    a_zero_point, b_zero_point = dialect.scalars(call)
    a = args[0].astype(np.int64) - a_zero_point
    b = args[1].astype(np.int64) - b_zero_point
    return int_matmul(a, np.swapaxes(b, -1, -2))


def _requantize(call: Expr, args: list[Array]) -> Array:
    p = dialect.RequantizeParams(*dialect.scalars(call))
    x = args[0].astype(np.int64) - p.x_zero_point
    return np.clip(rescale(x, Dyadic(args[1], args[2])) + p.zero_point, p.qmin, p.qmax)


def _shiftmax(call: Expr, args: list[Array]) -> Array:
    values = dialect.scalars(call)
    return shiftmax(args[0], ShiftmaxParams(*values[:2]), NormalizeParams(*values[2:]))


def _normalized_matmul(call: Expr, args: list[Array]) -> Array:
    zero_point, *norm = dialect.scalars(call)
    return normalized_matmul(args[0], args[1], zero_point, NormalizeParams(*norm))


def _layernorm(call: Expr, args: list[Array]) -> Array:
    return int_layernorm(args[0], LayerNormParams(args[1], args[2], *dialect.scalars(call)))


def _mean(call: Expr, args: list[Array]) -> Array:
    p = dialect.MeanParams(*dialect.scalars(call))
    total = (args[0].astype(np.int64) - p.x_zero_point).sum(axis=1)
    dyadic = Dyadic(np.asarray(p.multiplier), np.asarray(p.shift))
    return np.clip(rescale(total, dyadic) + p.zero_point, p.qmin, p.qmax)


def _lut(_: Expr, args: list[Array]) -> Array:
    x, table = args
    return table[np.arange(x.shape[1]).reshape(1, -1, 1, 1), x]


def _attention(call: Expr, args: list[Array]) -> Array:
    p = dialect.AttentionParams(*dialect.scalars(call))
    q, k, v = args[0].astype(np.int64).transpose(2, 0, 3, 1, 4)
    scores = int_matmul(q - p.q_zero_point, np.swapaxes(k - p.k_zero_point, -1, -2))
    codes = shiftmax_codes(scores, p.codes)
    norm = NormalizeParams(p.numerator, p.out_shift, p.zero_point, p.qmin, p.qmax)
    return normalized_matmul(codes, v, p.v_zero_point, norm).transpose(0, 2, 1, 3)


INTEGER: dict[str, Evaluator] = {
    dialect.PATCH_EMBED: _patch_embed,
    dialect.LINEAR: lambda call, a: _gemm(a[0], call),
    dialect.LINEAR_ADD: _linear_add,
    dialect.LINEAR_GELU: lambda call, a: shiftgelu(
        _gemm(a[0], call), GeluParams(*dialect.scalars(call))
    ),
    dialect.MATMUL: _matmul,
    dialect.REQUANTIZE: _requantize,
    dialect.SHIFTMAX_CODES: lambda call, a: shiftmax_codes(
        a[0], CodeParams(*dialect.scalars(call))
    ),
    dialect.SHIFTMAX: _shiftmax,
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
    dialect.MEAN: _mean,
    dialect.LUT: _lut,
    dialect.ATTENTION: _attention,
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
