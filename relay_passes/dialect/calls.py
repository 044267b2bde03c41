"""The ``vitq.*`` operators: names, constructors, readers.

Each is ``relax.call_pure_packed("vitq.<name>", tensors..., ty_args=...)`` with tensor operands
only: what varies between layers is data, so that layers share kernels. ``params`` is a 1-D int64
constant. What each computes is in ``numerics/``, exactly.

=================  ===================================================================  ============
operator           operands (shape, type)                                               result
=================  ===================================================================  ============
patch_embed        pixels u8 (B, Cin, H, W); weight i8 (N, Cin, P, P); bias,            (B, L, N)
                   multiplier, shift, zero_point i32 (N,); params (qmin, qmax)
linear             x i8/u8 (..., K); weight i8 (N, K); bias, multiplier, shift,         (..., N)
                   zero_point i32 (N,); params (qmin, qmax)
linear_add         the operands of linear; residual (..., N); params AddParams, where  (..., N)
                   a is the linear layer's result and b the residual
linear_gelu        the operands of linear; params GeluParams                            (..., N)
matmul             a i8/u8 (..., M, K); b i8/u8 (..., N, K); params (a_zp, b_zp)        i32
requantize         x (..., C); multiplier, shift i32 (C,) or (1,);                      as x
                   params (x_zp, zero_point, qmin, qmax)
shiftmax_codes     x (..., N); params CodeParams                                        u8
shiftmax           x (..., N); params SoftmaxParams                                     as x
normalized_matmul  codes u8 (..., M, N); value i8/u8 (..., N, D);                       (..., M, D)
                   params (value_zp,) + NormalizeParams
ivit_shiftmax      x (..., N); params IvitSoftmaxParams                                 u8
shiftgelu          x; params GeluParams                                                 as x
ivit_shiftgelu     x (..., C); params IvitGeluParams                                    as x
layernorm          x (..., C); multiplier, addend i32 (C,); params LayerNormParams      as x
add                a; b, broadcastable to a; params AddParams                           as a
mean               x (B, L, C); params MeanParams                                       (B, C)
lut                x u8 (B, C, H, W); table (C, 256)                                    as x
attention          qkv i8 (B, N, 3, H, D); params AttentionParams                       (B, N, H, D)
=================  ===================================================================  ============

Two more exist only between passes, and `CheckIntegerOnly` makes sure that none is left:
``vitq.dequantize(codes, scale f64, zero_point i64, axis i64)``, because an accumulator's scale is a
product that float32 could not hold, and ``vitq.quantize(x, scale, zero_point, axis, bounds)`` for
bounds narrower than the storage type. Axis -1 means one scale.
"""

from collections.abc import Sequence

import numpy as np
from tvm import relax

from vitq.numerics.add import AddParams
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.attention import AttentionParams, QkvShape
from vitq.numerics.int_layernorm import LayerNormParams
from vitq.numerics.ivit import IvitGeluParams, IvitSoftmaxParams
from vitq.numerics.linear import GEMM_OPERANDS, LinearParams
from vitq.numerics.nonlinear import SoftmaxParams
from vitq.numerics.pooling import MeanParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftgelu import GeluParams
from vitq.numerics.shiftmax import CodeParams, NormalizeParams, ShiftmaxParams
from vitq.relay_passes.expressions import DEQUANTIZE, Expr, constant, dtype_of, op_name, shape_of

PREFIX = "vitq."
PATCH_EMBED = PREFIX + "patch_embed"
LINEAR = PREFIX + "linear"
LINEAR_ADD = PREFIX + "linear_add"
LINEAR_GELU = PREFIX + "linear_gelu"
MATMUL = PREFIX + "matmul"
REQUANTIZE = PREFIX + "requantize"
SHIFTMAX_CODES = PREFIX + "shiftmax_codes"
SHIFTMAX = PREFIX + "shiftmax"
NORMALIZED_MATMUL = PREFIX + "normalized_matmul"
IVIT_SHIFTMAX = PREFIX + "ivit_shiftmax"
SHIFTGELU = PREFIX + "shiftgelu"
IVIT_SHIFTGELU = PREFIX + "ivit_shiftgelu"
LAYERNORM = PREFIX + "layernorm"
ADD = PREFIX + "add"
MEAN = PREFIX + "mean"
LUT = PREFIX + "lut"
ATTENTION = PREFIX + "attention"

INTEGER_OPS = (
    PATCH_EMBED,
    LINEAR,
    LINEAR_ADD,
    LINEAR_GELU,
    MATMUL,
    REQUANTIZE,
    SHIFTMAX_CODES,
    SHIFTMAX,
    IVIT_SHIFTMAX,
    NORMALIZED_MATMUL,
    SHIFTGELU,
    IVIT_SHIFTGELU,
    LAYERNORM,
    ADD,
    MEAN,
    LUT,
    ATTENTION,
)
"""The operators that kernels exist for."""

BYTES = ("int8", "uint8")
WORDS = ("int8", "uint8", "int16", "uint16")


def params_constant(values: Sequence[int] | IntArray) -> Expr:
    """A ``params`` operand."""
    return constant(np.array([int(value) for value in values], np.int64))


def make(name: str, operands: Sequence[Expr], shape: Sequence[int], dtype: str) -> Expr:
    """A call of any dialect operator."""
    return relax.call_pure_packed(name, *operands, ty_args=relax.TensorType(list(shape), dtype))


def operands(call: Expr) -> list[Expr]:
    """The tensor operands of a dialect call."""
    return list(call.args[1:])


def array(call: Expr, index: int) -> IntArray:
    """A constant operand of a dialect call; negative indices count from the end."""
    return np.asarray(operands(call)[index].value.numpy())


def scalars(call: Expr) -> tuple[int, ...]:
    """The ``params`` operand of a dialect call as Python integers."""
    return tuple(int(value) for value in array(call, -1))


def is_dialect(expr: Expr) -> bool:
    """Whether an expression is a call of an integer operator."""
    return op_name(expr) in INTEGER_OPS


def patch_embed(pixels: Expr, layer: LinearParams, dtype: str) -> Expr:
    """Non-overlapping convolution as one matrix product: (B, Cin, H, W) to (B, L, N)."""
    batch, _, height, width = shape_of(pixels)
    patch = layer.weight.shape[-1]
    shape = batch, (height // patch) * (width // patch), layer.channels
    return make(PATCH_EMBED, [pixels, *_constants(layer)], shape, dtype)


def linear(x: Expr, layer: LinearParams, dtype: str) -> Expr:
    """``x @ weight.T + bias``, requantized."""
    return make(LINEAR, [x, *_constants(layer)], (*shape_of(x)[:-1], layer.channels), dtype)


def _constants(layer: LinearParams) -> list[Expr]:
    """A layer's operands behind its input."""
    return [constant(array) for array in layer.operands()]


def linear_integers(call: Expr) -> LinearParams:
    """The integers of a linear layer, fused or not, or a patch embedding."""
    return LinearParams.from_operands([array(call, i) for i in range(1, GEMM_OPERANDS)])


def linear_add(layer: Expr, residual: Expr, params: AddParams, dtype: str) -> Expr:
    """A ``vitq.linear`` call's codes plus a residual of the same shape."""
    inputs = [*operands(layer), residual, params_constant(params)]
    return make(LINEAR_ADD, inputs, shape_of(residual), dtype)


def linear_gelu(layer: Expr, params: GeluParams, dtype: str) -> Expr:
    """GELU of a ``vitq.linear`` call's codes."""
    x, weight, *_ = operands(layer)
    shape = (*shape_of(x)[:-1], weight.value.numpy().shape[0])
    return make(LINEAR_GELU, [*operands(layer), params_constant(params)], shape, dtype)


def gemm_limits(call: Expr) -> tuple[int, int]:
    """The bounds (qmin, qmax) of a linear layer's codes, fused or not."""
    low, high = array(call, GEMM_OPERANDS - 1)
    return int(low), int(high)


def swap_summands(p: AddParams) -> AddParams:
    """The same sum with its operands exchanged."""
    return p._replace(
        a_zero_point=p.b_zero_point,
        b_zero_point=p.a_zero_point,
        a_multiplier=p.b_multiplier,
        b_multiplier=p.a_multiplier,
    )


def matmul(a: Expr, b: Expr, a_zero_point: int, b_zero_point: int) -> Expr:
    """``(a - a_zp) @ (b - b_zp).T`` as int32; `b` is (..., N, K)."""
    shape = (*shape_of(a)[:-1], shape_of(b)[-2])
    return make(MATMUL, [a, b, params_constant((a_zero_point, b_zero_point))], shape, "int32")


def requantize(x: Expr, params: RequantizeParams, dtype: str) -> Expr:
    """One scale to another, along the last axis or for the whole tensor."""
    multiplier = constant(params.dyadic.multiplier.reshape(-1), "int32")
    shift = constant(params.dyadic.shift.reshape(-1), "int32")
    scalars = params_constant(params.scalars())
    return make(REQUANTIZE, [x, multiplier, shift, scalars], shape_of(x), dtype)


def shiftmax_codes(x: Expr, params: CodeParams) -> Expr:
    """Unnormalized exponentials as 8-bit codes."""
    return make(SHIFTMAX_CODES, [x, params_constant(params)], shape_of(x), "uint8")


def shiftmax(x: Expr, octaves: ShiftmaxParams, norm: NormalizeParams, dtype: str) -> Expr:
    """Normalized softmax."""
    params = params_constant(SoftmaxParams(octaves, norm).scalars())
    return make(SHIFTMAX, [x, params], shape_of(x), dtype)


def ivit_shiftmax(x: Expr, params: IvitSoftmaxParams) -> Expr:
    """I-ViT's softmax, in steps of 1/128."""
    return make(IVIT_SHIFTMAX, [x, params_constant(params)], shape_of(x), "uint8")


def normalized_matmul(
    codes: Expr, value: Expr, value_zero_point: int, norm: NormalizeParams, dtype: str
) -> Expr:
    """``codes @ value / rowsum(codes)``, requantized."""
    shape = (*shape_of(codes)[:-1], shape_of(value)[-1])
    params = params_constant((value_zero_point, *norm))
    return make(NORMALIZED_MATMUL, [codes, value, params], shape, dtype)


def shiftgelu(x: Expr, params: GeluParams, dtype: str) -> Expr:
    """GELU."""
    return make(SHIFTGELU, [x, params_constant(params)], shape_of(x), dtype)


def ivit_shiftgelu(x: Expr, params: IvitGeluParams, dtype: str) -> Expr:
    """I-ViT's GELU, relative to the maximum of the last axis."""
    return make(IVIT_SHIFTGELU, [x, params_constant(params)], shape_of(x), dtype)


def layernorm(x: Expr, params: LayerNormParams, dtype: str) -> Expr:
    """Layer normalization over the last axis."""
    operands = [
        x,
        constant(params.multiplier, "int32"),
        constant(params.addend, "int32"),
        params_constant(params.scalars()),
    ]
    return make(LAYERNORM, operands, shape_of(x), dtype)


def add(a: Expr, b: Expr, params: AddParams, dtype: str) -> Expr:
    """Addition with one rounding; `b` broadcasts to `a`."""
    return make(ADD, [a, b, params_constant(params)], shape_of(a), dtype)


def mean(x: Expr, params: MeanParams, dtype: str) -> Expr:
    """Mean over axis 1 of (B, L, C)."""
    batch, _, channels = shape_of(x)
    return make(MEAN, [x, params_constant(params)], (batch, channels), dtype)


def lut(x: Expr, table: IntArray) -> Expr:
    """One table of 256 codes for each channel (axis 1) of uint8 pixels."""
    return make(LUT, [x, constant(table)], shape_of(x), str(table.dtype))


def attention(qkv: Expr, params: AttentionParams, dtype: str) -> Expr:
    """All of one layer's attention between the qkv and the output projection."""
    result = QkvShape.of(shape_of(qkv)).result
    return make(ATTENTION, [qkv, params_constant(params)], result, dtype)


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
    return make(DEQUANTIZE, operands, shape_of(codes), "float32")


def is_bytes(expr: Expr) -> bool:
    """Whether a tensor holds 8-bit codes, as matrix products need."""
    return dtype_of(expr) in BYTES


def is_words(expr: Expr) -> bool:
    """Whether a tensor holds codes of at most 16 bits."""
    return dtype_of(expr) in WORDS
