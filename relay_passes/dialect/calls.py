"""Calls of the ``vitq.*`` operators in Relax: constructors and readers.

Each is ``relax.call_pure_packed("vitq.<name>", tensors..., ty_args=...)`` with tensor operands
only: what varies between layers is data, so that layers share kernels. ``params`` is a 1-D int64
constant. What each computes is in ``numerics/``, exactly; its record
(`relay_passes.dialect.operators`) says everything else, and `make` takes shapes from there.

=================  ===================================================================  ============
operator           operands (shape, type)                                               result
=================  ===================================================================  ============
patch_embed        pixels u8 (B, Cin, H, W); weight i8 (N, Cin, P, P); bias,            (B, L, N)
                   multiplier, shift, zero_point i32 (N,); params (qmin, qmax)
linear             x i8/u8 (..., K); weight i8 (N, K); bias, multiplier, shift,         (..., N)
                   zero_point i32 (N,); params (qmin, qmax)
depthwise          x i8/u8 (B, R, C); taps i32 (M, K); weight i8 (C, K); bias,          (B, M, C)
                   multiplier, shift, zero_point i32 (C,); params (x_zp, qmin, qmax)
linear_add         the operands of linear; residual (..., N); params AddParams, where  (..., N)
                   a is the linear layer's result and b the residual
linear_gelu        the operands of linear; params GeluParams                            (..., N)
matmul             a i8/u8 (..., M, K); b i8/u8 (..., N, K); params (a_zp, b_zp)        i32
requantize         x (..., C); multiplier, shift i32 (C,) or (1,);                      as x
                   params (x_zp, zero_point, qmin, qmax)
offset             x; offset i32, broadcastable to x                                    i32, as x
shiftmax_codes     x (..., N); params CodeParams                                        u8
shiftmax           x (..., N); params SoftmaxParams                                     as x
normalized_matmul  codes u8 (..., M, N); value i8/u8 (..., N, D);                       (..., M, D)
                   params (value_zp,) + NormalizeParams
ivit_shiftmax      x (..., N); params IvitSoftmaxParams                                 u8
shiftgelu          x; params GeluParams                                                 as x
ivit_shiftgelu     x (..., C); params IvitGeluParams                                    as x
layernorm          x (..., C); multiplier, addend i32 (C,); params LayerNormParams      as x
rmsnorm            the operands of layernorm                                            as x
add                a; b, broadcastable to a; params AddParams                           as a
multiply           a; b, broadcastable to each other; params MultiplyParams             broadcast
multiply_add       a; b; c; d, broadcastable to each other; params MultiplyAddParams    broadcast
mean               x (B, L, C); params MeanParams                                       (B, C)
argmax             x of 16 bits at most (B, C, M)                                       u8 (B, M)
lut                x; table (C, n) or (1, n); params TableParams                        as x
gather_rows        x (B, R, C); rows i32 (M,); params (fill,)                           (B, M, C)
gather_linear      x (B, R, K); rows i32 (M,); then as linear                           (B, M, N)
gather_linear_add  x (B, R, K); rows i32 (M,); then as linear_add                       (B, M, N)
attention          qkv i8 (B, N, 3, H, D); params AttentionParams                       (B, N, H, D)
offset_attention   qkv i8 (B, N, 3, H, D); offsets i32 (G, N, N); index i32 (W, H);     (B, N, H, D)
                   params AttentionParams
=================  ===================================================================  ============

Two more exist only between passes, and `CheckIntegerOnly` makes sure that none is left:
``vitq.dequantize(codes, scale f64, zero_point i64, axis i64)``, because an accumulator's scale is a
product that float32 could not hold, and ``vitq.quantize(x, scale, zero_point, axis, bounds)`` for
bounds narrower than the storage type. Axis -1 means one scale.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.add import AddParams
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.attention import AttentionParams
from vitq.numerics.errors import VitqError
from vitq.numerics.int_layernorm import LayerNormParams
from vitq.numerics.ivit import IvitGeluParams, IvitSoftmaxParams
from vitq.numerics.linear import LinearParams
from vitq.numerics.multiply import MultiplyAddParams, MultiplyParams
from vitq.numerics.nonlinear import SoftmaxParams
from vitq.numerics.pooling import MeanParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftgelu import GeluParams
from vitq.numerics.shiftmax import CodeParams, NormalizeParams, ShiftmaxParams
from vitq.numerics.table import PIXELS, TableParams
from vitq.relay_passes.dialect import names
from vitq.relay_passes.dialect.operator import Operator
from vitq.relay_passes.dialect.registry import OPERATORS
from vitq.relay_passes.expressions import (
    Expr,
    constant,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
)

BYTES = ("int8", "uint8")
WORDS = ("int8", "uint8", "int16", "uint16")


def params_constant(values: Sequence[int] | IntArray) -> Expr:
    """Make a ``params`` operand."""
    return constant(np.array([int(value) for value in values], np.int64))


def packed(name: str, operands: Sequence[Expr], shape: Sequence[int], dtype: str) -> Expr:
    """Make a call of any packed function of tensors."""
    return relax.call_pure_packed(name, *operands, ty_args=relax.TensorType(list(shape), dtype))


def make(
    name: str,
    operands: Sequence[Expr],
    params: Sequence[int] | IntArray | None = None,
    dtype: str = "",
) -> Expr:
    """Make a call of an integer operator.

    Args:
        name: of its record.
        operands: all but the parameters.
        params: the integers of its parameters, where it has any.
        dtype: of the result, where the operator does not decide it.

    Returns:
        The call; its shape is the record's.

    Raises:
        VitqError: for operands that the record does not have, or one that must be constant.
    """
    record = OPERATORS[name]
    given = list(operands) if params is None else [*operands, params_constant(params)]
    if len(given) != len(record.operands):
        raise VitqError(f"{name} takes {', '.join(record.operands)}: {len(given)} operands given")
    for operand, expr in zip(record.operands, given, strict=True):
        if record.must_be_constant(operand) and not is_constant(expr):
            raise VitqError(f"{name}: its {operand} must be constant")
    shape = record.shape(*(shape_of(operand) for operand in given))
    return packed(name, given, shape, record.dtype or dtype)


def operands(call: Expr) -> list[Expr]:
    """Return the tensor operands of a dialect call."""
    return list(call.args[1:])


def array(call: Expr, index: int) -> IntArray:
    """Read a constant operand of a dialect call; negative indices count from the end."""
    return np.asarray(operands(call)[index].value.numpy())


def scalars(call: Expr) -> tuple[int, ...]:
    """Return the ``params`` operand of a dialect call as Python integers."""
    return tuple(int(value) for value in array(call, -1))


def record_of(call: Expr) -> Operator:
    """Return the record of a dialect call's operator."""
    return OPERATORS[op_name(call)]


def params_of(call: Expr) -> Any:
    """Return the value of a dialect call's parameters; None for an operator without any."""
    record = record_of(call)
    return None if record.params is None else record.read(array(call, -1))


def is_dialect(expr: Expr) -> bool:
    """Whether an expression is a call of an integer operator."""
    return op_name(expr) in OPERATORS


def _layer(name: str, x: Expr, layer: LinearParams, dtype: str) -> Expr:
    *arrays, bounds = layer.operands()
    return make(name, [x, *(constant(array) for array in arrays)], bounds, dtype)


def patch_embed(pixels: Expr, layer: LinearParams, dtype: str) -> Expr:
    """Non-overlapping convolution as one matrix product: (B, Cin, H, W) to (B, L, N)."""
    return _layer(names.PATCH_EMBED, pixels, layer, dtype)


def depthwise(x: Expr, taps: IntArray, layer: LinearParams, x_zero_point: int, dtype: str) -> Expr:
    """Convolve each channel of (B, R, C); `layer` has weights (C, K)."""
    *arrays, bounds = layer.operands()
    constants = [constant(taps, "int32"), *(constant(array) for array in arrays)]
    return make(names.DEPTHWISE, [x, *constants], (x_zero_point, *bounds), dtype)


def linear(x: Expr, layer: LinearParams, dtype: str) -> Expr:
    """``x @ weight.T + bias``, requantized."""
    return _layer(names.LINEAR, x, layer, dtype)


def linear_add(layer: Expr, residual: Expr, params: AddParams, dtype: str) -> Expr:
    """Add to a ``vitq.linear`` or ``vitq.gather_linear`` call's codes a residual of its shape."""
    name = names.LINEAR_ADD if op_name(layer) == names.LINEAR else names.GATHER_LINEAR_ADD
    return make(name, [*operands(layer), residual], params, dtype)


def linear_gelu(layer: Expr, params: GeluParams, dtype: str) -> Expr:
    """GELU of a ``vitq.linear`` call's codes."""
    return make(names.LINEAR_GELU, operands(layer), params, dtype)


def gather_rows(x: Expr, rows: IntArray, fill: int = 0) -> Expr:
    """Rows of (B, R, C) in another order."""
    return make(names.GATHER_ROWS, [x, constant(rows, "int32")], (fill,), dtype_of(x))


def gather_linear(layer: Expr, x: Expr, rows: Expr) -> Expr:
    """Return a ``vitq.linear`` call's layer on rows of (B, R, K) that a table names."""
    *rest, params = operands(layer)[1:]
    return make(
        names.GATHER_LINEAR, [x, rows, *rest], params.value.numpy().tolist(), dtype_of(layer)
    )


def swap_summands(p: AddParams) -> AddParams:
    """Return the same sum with its operands exchanged."""
    return p._replace(
        a_zero_point=p.b_zero_point,
        b_zero_point=p.a_zero_point,
        a_multiplier=p.b_multiplier,
        b_multiplier=p.a_multiplier,
    )


def matmul(a: Expr, b: Expr, a_zero_point: int, b_zero_point: int) -> Expr:
    """Compute ``(a - a_zp) @ (b - b_zp).T`` as int32; `b` is (..., N, K)."""
    return make(names.MATMUL, [a, b], (a_zero_point, b_zero_point))


def requantize(x: Expr, params: RequantizeParams, dtype: str) -> Expr:
    """One scale to another, along the last axis or for the whole tensor."""
    parts = params.dyadic.multiplier, params.dyadic.shift
    dyadic = [constant(part.reshape(-1), "int32") for part in parts]
    return make(names.REQUANTIZE, [x, *dyadic], params.scalars(), dtype)


def offset(x: Expr, constant_offset: IntArray) -> Expr:
    """Scores plus a bias or mask in steps of their scale."""
    return make(names.OFFSET, [x, constant(constant_offset, "int32")])


def shiftmax_codes(x: Expr, params: CodeParams) -> Expr:
    """Unnormalized exponentials as 8-bit codes."""
    return make(names.SHIFTMAX_CODES, [x], params)


def shiftmax(x: Expr, octaves: ShiftmaxParams, norm: NormalizeParams, dtype: str) -> Expr:
    """Call normalized softmax."""
    return make(names.SHIFTMAX, [x], SoftmaxParams(octaves, norm).scalars(), dtype)


def ivit_shiftmax(x: Expr, params: IvitSoftmaxParams) -> Expr:
    """I-ViT's softmax, in steps of 1/128."""
    return make(names.IVIT_SHIFTMAX, [x], params)


def normalized_matmul(
    codes: Expr, value: Expr, value_zero_point: int, norm: NormalizeParams, dtype: str
) -> Expr:
    """``codes @ value / rowsum(codes)``, requantized."""
    return make(names.NORMALIZED_MATMUL, [codes, value], (value_zero_point, *norm), dtype)


def shiftgelu(x: Expr, params: GeluParams, dtype: str) -> Expr:
    """GELU."""
    return make(names.SHIFTGELU, [x], params, dtype)


def ivit_shiftgelu(x: Expr, params: IvitGeluParams, dtype: str) -> Expr:
    """I-ViT's GELU, relative to the maximum of the last axis."""
    return make(names.IVIT_SHIFTGELU, [x], params, dtype)


def layernorm(x: Expr, params: LayerNormParams, dtype: str, name: str = names.LAYERNORM) -> Expr:
    """Layer normalization over the last axis."""
    affine = [constant(part, "int32") for part in (params.multiplier, params.addend)]
    return make(name, [x, *affine], params.scalars(), dtype)


def rmsnorm(x: Expr, params: LayerNormParams, dtype: str) -> Expr:
    """RMS normalization over the last axis, of codes whose zero point is 0."""
    return layernorm(x, params, dtype, names.RMSNORM)


def add(a: Expr, b: Expr, params: AddParams, dtype: str) -> Expr:
    """Addition with one rounding; `b` broadcasts to `a`."""
    return make(names.ADD, [a, b], params, dtype)


def mean(x: Expr, params: MeanParams, dtype: str) -> Expr:
    """Mean over axis 1 of (B, L, C)."""
    return make(names.MEAN, [x], params, dtype)


def argmax(x: Expr) -> Expr:
    """Class of the largest code along axis 1 of (B, C, M)."""
    return make(names.ARGMAX, [x])


def multiply(a: Expr, b: Expr, params: MultiplyParams, dtype: str) -> Expr:
    """Product with one rounding; `a` and `b` broadcast to each other."""
    return make(names.MULTIPLY, [a, b], params, dtype)


def multiply_add(factors: Sequence[Expr], params: MultiplyAddParams, dtype: str) -> Expr:
    """Call ``a * b + c * d`` with one rounding; all four broadcast to each other."""
    return make(names.MULTIPLY_ADD, factors, params, dtype)


def lut(x: Expr, table: IntArray, params: TableParams = PIXELS) -> Expr:
    """Look up codes: in one table, or in one for each channel (of pixels, if nothing is said)."""
    return make(names.LUT, [x, constant(table)], params, str(table.dtype))


def attention(qkv: Expr, params: AttentionParams, dtype: str) -> Expr:
    """All of one layer's attention between the qkv and the output projection."""
    return make(names.ATTENTION, [qkv], params, dtype)


def offset_attention(
    qkv: Expr, offsets: IntArray, index: IntArray, params: AttentionParams, dtype: str
) -> Expr:
    """Attention with constants added to the scores: which one, by window and head."""
    constants = constant(offsets, "int32"), constant(index, "int32")
    return make(names.OFFSET_ATTENTION, [qkv, *constants], params, dtype)


def dequantize(
    codes: Expr, scale: FloatArray | float, zero_point: IntArray | int, axis: int | None
) -> Expr:
    """Codes or an accumulator seen as real numbers, with a float64 scale."""
    operands = [
        codes,
        constant(np.asarray(scale, np.float64)),
        constant(np.asarray(zero_point, np.int64)),
        constant(np.asarray(-1 if axis is None else axis, np.int64)),
    ]
    return packed(names.DEQUANTIZE, operands, shape_of(codes), "float32")


def is_bytes(expr: Expr) -> bool:
    """Whether a tensor holds 8-bit codes, as matrix products need."""
    return dtype_of(expr) in BYTES


def is_words(expr: Expr) -> bool:
    """Whether a tensor holds codes of at most 16 bits."""
    return dtype_of(expr) in WORDS
