"""LowerLayernorm: layer normalization becomes I-LayerNorm."""

import numpy as np

from vitq.numerics.int_layernorm import layernorm_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, dtype_of, ints, normalize_axis, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.rewriting import BindingPass


class LowerLayernorm(BindingPass):
    """Lowers quantize(layer_norm) to ``vitq.layernorm``.

    Before -> after::

        quantize(layer_norm(dequantize(x, s_x), gamma, beta, axes=[-1], eps), s, z)
        -> vitq.layernorm(x, multiplier, addend, (eps_q, fraction_bits, shift, qmin, qmax))

    with ``eps_q = C**2 eps / s_x**2`` from this layer's own eps. The input's zero point cancels.
    Error: see ``numerics/int_layernorm.py``. Refuses another axis, codes over 16 bits, and
    per-channel scales (`FoldLayernormScales` removes those of the output).
    """

    requires = (Property.QUANTIZERS_HOISTED,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        norm = None if out is None else ctx.call(out.data, "relax.nn.layer_norm")
        if out is None or norm is None:
            return None
        rank = len(shape_of(norm))
        axes = [normalize_axis(axis, rank) for axis in ints(norm.attrs.axes)]
        if axes != [rank - 1]:
            raise DeclineError(f"normalized over axes {axes}: only the last axis is supported")
        codes = ctx.codes(norm.args[0])
        if codes is None:
            raise DeclineError("the input is not quantized")
        if not dialect.is_words(codes.codes):
            raise DeclineError(f"the input has {dtype_of(codes.codes)} codes: 16 bits at most")
        if not codes.is_per_tensor:
            raise DeclineError("the input has a scale for each channel")
        if not out.is_per_tensor:
            raise DeclineError("the output has a scale for each channel")
        gamma, beta = (ctx.real(arg) for arg in norm.args[1:3])
        if gamma is None or beta is None:
            raise DeclineError("gamma or beta is not constant")
        channels = shape_of(norm)[-1]
        gamma = gamma if norm.attrs.scale else np.ones(channels)
        beta = beta if norm.attrs.center else np.zeros(channels)
        eps = float(norm.attrs.epsilon)
        params = layernorm_params(
            float(codes.scale), eps, gamma.reshape(-1), beta.reshape(-1), out.qparams
        )
        return dialect.layernorm(codes.codes, params, out.dtype)
