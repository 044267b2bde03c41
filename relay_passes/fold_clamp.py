"""FoldClamp: ReLU and its like become the bounds of the quantizer behind them."""

from dataclasses import replace

import numpy as np

from vitq.numerics.qparams import quantize
from vitq.relay_passes.expressions import Expr, op_name
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.clamps import read_clamp
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.functions import read_function
from vitq.relay_passes.reading.matching import quantize_call
from vitq.relay_passes.rewriting import BindingPass


class FoldClamp(BindingPass):
    """Folds a clamp of real numbers into the quantizer that reads it.

    Before -> after::

        quantize(relu(x), s, z)                  ->  vitq.quantize(x, s, z, (max(qmin, z), qmax))
        quantize(minimum(maximum(x, a), b), s, z)  ->  vitq.quantize(x, s, z, (q(a), q(b)))

    with q the quantizer. Exact: it is monotone, so that the code of a clamped value is the clamped
    code. What x is, a product or a sum, then gets its quantizer right behind it: no operator is
    left. Refuses bounds that leave out the zero point or are one code, and scales for each channel.
    """

    requires = (Property.CLIPS_FOLDED, Property.QDQ_CANONICAL)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None or (clamp := read_clamp(out.data, ctx)) is None:
            return None
        function = read_function(out.data, ctx)
        if function is not None and function.ends is None:
            return None  # hardsigmoid is clip(x / 6 + 1 / 2, 0, 1), and a table
        if not out.is_per_tensor:
            raise DeclineError("a clamp before a scale for each channel")
        low, high = (
            int(quantize(np.asarray(end, np.float32), out.qparams)) for end in clamp.bounds
        )
        if low >= high or not low <= int(out.qparams.zero_point) <= high:
            name = op_name(ctx.definition(out.data))
            raise DeclineError(f"the bounds [{low}, {high}] of a {name} leave out the zero point")
        return quantize_call(clamp.data, replace(out.qparams, qmin=low, qmax=high), out.dtype)
