"""LowerRmsnorm: RMS and L2 normalization become one integer operator."""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.int_rmsnorm import rmsnorm_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import requantize_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of, ints, normalize_axis, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.clamps import number
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes
from vitq.relay_passes.rewriting import BindingPass

WIDEST = 2**15 - 1


class Norm(NamedTuple):
    """An RMS normalization.

    Attributes:
        data: what is normalized.
        eps: added to the mean square.
        gamma: (C,).
    """

    data: Expr
    eps: float
    gamma: FloatArray


class LowerRmsnorm(BindingPass):
    """Lowers a quantized RMS normalization to ``vitq.rmsnorm``.

    Before -> after::

        quantize(x / sqrt(mean(x * x, -1) + eps) * gamma, s, z)  ->  vitq.rmsnorm(x, ...)

    where x is dequantized codes; codes with a zero point are brought to one of 0 before
    (``vitq.requantize``, exact). Error: see ``numerics/int_rmsnorm.py``. Refuses another axis,
    codes over 16 bits, and scales for each channel.
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        norm = None if out is None else read_rms_norm(out.data, ctx)
        if out is None or norm is None:
            return None
        codes = ctx.codes(norm.data)
        if codes is None:
            raise DeclineError("the input is not quantized")
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the input has {dtype_of(codes.codes)} codes: 16 bits at most")
        if not (codes.is_per_tensor and out.is_per_tensor):
            raise DeclineError("a scale for each channel")
        params = rmsnorm_params(float(codes.scale), norm.eps, norm.gamma, out.qparams)
        return dialect.rmsnorm(_centred(codes, ctx), params, out.dtype)


def _centred(codes: Codes, ctx: Context) -> Expr:
    """Return the codes minus their zero point, as codes of their own where it is not 0."""
    if not int(codes.zero_point):
        return codes.codes
    if dtype_of(codes.codes) not in dialect.BYTES:
        raise DeclineError("codes of 16 bits have a zero point")
    same = QuantParams.per_tensor(float(codes.scale), 0, -WIDEST - 1, WIDEST)
    params = requantize_params(float(np.float32(codes.scale)), int(codes.zero_point), same)
    return ctx.emit(dialect.requantize(codes.codes, params, "int16"), "centred")


def read_rms_norm(expr: Expr, ctx: Context) -> Norm | None:
    """Read ``x / sqrt(mean(x * x) + eps)``, times gamma or not.

    Args:
        expr: what may be one.
        ctx: the function.

    Returns:
        None for anything else.

    Raises:
        DeclineError: for a mean over another axis than the last.
    """
    channels = shape_of(expr)[-1] if shape_of(expr) else 1
    gamma = np.ones(channels)
    call = ctx.call(expr, "relax.multiply")
    factor = None if call is None else ctx.real(call.args[1])
    if call is not None and factor is not None:
        if factor.size not in (1, channels) or (factor.ndim and factor.shape[-1] != factor.size):
            return None
        gamma, expr = np.broadcast_to(factor.reshape(-1), (channels,)), call.args[0]
    data, square = _numerator(expr, ctx)
    moved = None if square is None else ctx.call(square, "relax.add")
    eps = None if moved is None else number(moved.args[1], ctx)
    mean = None if moved is None else ctx.call(moved.args[0], "relax.mean")
    if mean is None or eps is None or not _is_square(mean.args[0], data, ctx):
        return None
    rank = len(shape_of(data))
    axes = [] if mean.attrs.axis is None else ints(mean.attrs.axis)
    if [normalize_axis(axis, rank) for axis in axes] != [rank - 1]:
        raise DeclineError(f"normalized over axes {list(axes)}: only the last axis is supported")
    return Norm(data, eps, gamma.astype(np.float32))


def _numerator(expr: Expr, ctx: Context) -> tuple[Expr, Expr | None]:
    """Split ``x / sqrt(v)`` or ``x * rsqrt(v)`` into x and v."""
    quotient, product = ctx.call(expr, "relax.divide"), ctx.call(expr, "relax.multiply")
    if quotient is not None:
        root = ctx.call(quotient.args[1], "relax.sqrt")
        return quotient.args[0], None if root is None else root.args[0]
    for one, other in ((0, 1), (1, 0)) if product is not None else ():
        assert product is not None
        root = ctx.call(product.args[other], "relax.rsqrt")
        if root is not None:
            return product.args[one], root.args[0]
    return expr, None


def _is_square(expr: Expr, data: Expr, ctx: Context) -> bool:
    """Whether an expression is the square of another one."""
    product, power = ctx.call(expr, "relax.multiply"), ctx.call(expr, "relax.power")
    if product is not None:
        return all(arg == data for arg in product.args)
    return power is not None and power.args[0] == data and number(power.args[1], ctx) == 2.0
