"""LowerMatmul: a product of two activations becomes its int32 accumulator."""

import numpy as np
from tvm import relax

from vitq.numerics.matmul import product_scale
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, constant, op_name, shape_of
from vitq.relay_passes.gemm import input_codes
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.code_table import read_code_table
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes
from vitq.relay_passes.rewriting import BindingPass


class LowerMatmul(BindingPass):
    """Lowers matmul of two dequantized tensors to ``vitq.matmul``.

    Before -> after::

        matmul(dequantize(a, s_a, z_a), dequantize(b, s_b, z_b))
        -> vitq.dequantize(vitq.matmul(a, swap_last_two(b), (z_a, z_b)), s_a * s_b)

    The accumulator is seen as real numbers with the float64 product of the scales; what reads it
    (`FoldScalarMultiply`, `LowerShiftmax`, `LowerRequantize`) fuses that scale. Exact.
    A constant operand (a learned query, weights of a resizing) is its codes, repeated where batch
    dimensions broadcast. Refuses operands that are not 8-bit per tensor, and batch dimensions of
    activations that broadcast.
    """

    requires = (Property.QUANTIZERS_HOISTED,)
    ensures = (Property.PRODUCTS_LOWERED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) != "relax.matmul":
            return None
        a, b = (ctx.codes(arg) for arg in value.args)
        if a is not None and _is_exponential(a.codes, ctx):
            return None  # LowerNormalizedMatmul
        if _is_weight(value.args[1], ctx) or any(
            ctx.real(arg) is not None and ctx.codes(arg) is None for arg in value.args
        ):
            return None  # weights: LowerLinear
        a, b = input_codes(a, "left operand"), input_codes(b, "right operand")
        lead = shape_of(value)[:-2]
        left, right = (_for_each(x, lead) for x in (a, b))
        rank = len(lead) + 2
        order = [*range(rank - 2), rank - 1, rank - 2]
        if b.array is not None:
            turned = constant(right.value.numpy().transpose(order))
        else:
            turned = ctx.emit(relax.op.permute_dims(right, order), "transposed")
        product = dialect.matmul(left, turned, int(a.zero_point), int(b.zero_point))
        acc = ctx.emit(product, "acc")
        return dialect.dequantize(acc, product_scale(a.scale, b.scale), 0, None)


def _is_weight(operand: Expr, ctx: Context) -> bool:
    """Whether a right operand is one constant matrix."""
    return ctx.real(operand) is not None and len(shape_of(operand)) == 2


def _for_each(operand: Codes, lead: tuple[int, ...]) -> Expr:
    """Return codes with these leading dimensions; constants are repeated."""
    if shape_of(operand.codes)[:-2] == lead:
        return operand.codes
    if operand.array is None:
        raise DeclineError("the operands' batch dimensions differ")
    return constant(np.broadcast_to(operand.array, (*lead, *operand.array.shape[-2:])))


def _is_exponential(codes: Expr, ctx: Context) -> bool:
    """Whether codes are those of exp(x - max(x)), which its row sum will divide."""
    looked_up = read_code_table(codes, ctx)
    quantizer = ctx.quantizer(codes if looked_up is None else looked_up.codes)
    return quantizer is not None and ctx.call(quantizer.data, "relax.exp") is not None
