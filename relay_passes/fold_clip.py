"""FoldClip: a clip of codes becomes the bounds of the quantizer before it."""

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import IRModule, relax, tirx

from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.expressions import Expr, constant, dtype_of, is_constant, is_float, op_name
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import quantize_call, read_quantize
from vitq.relay_passes.rewriting import BindingPass

CALL_TIR = "relax.call_tir"


class FoldClip(BindingPass):
    """Folds ONNX Clip on codes (a range narrower than its storage type) into the quantizer.

    Before -> after::

        minimum(maximum(quantize(x, s, z), qmin), qmax)  ->  vitq.quantize(x, s, z, (qmin, qmax))

        a Clip of real numbers                           ->  minimum(maximum(x, a), b)

    The frontend writes a Clip as calls of two element loops; what they compute is read from
    their bodies. A clip of constant codes is evaluated. Exact. Refuses bounds that are not constant
    scalars, and a zero point outside of them.
    """

    requires = (Property.CONSTANTS_FOLDED,)
    ensures = (Property.CLIPS_FOLDED,)

    def __init__(self) -> None:
        """Begin without loops."""
        super().__init__()
        self._extremes: dict[str, str] = {}

    def __call__(self, mod: IRModule) -> IRModule:
        """Read what the module's element loops compute, then rewrite ``main``."""
        self._extremes = {}
        for name, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc) and (kind := extreme_of(function)):
                self._extremes[name.name_hint] = kind
        return super().__call__(mod)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        kind = self._kind(value)
        if kind is None:
            return None
        data, bound = value.args[1].fields
        if is_constant(data) and is_constant(bound):
            limited = getattr(np, kind)(data.value.numpy(), bound.value.numpy())
            return constant(limited.astype(dtype_of(data)))
        quantizer = read_quantize(ctx.definition(data))
        if quantizer is None and is_float(data):
            return getattr(relax.op, kind)(data, bound)
        if quantizer is None:
            raise DeclineError(f"{kind} of something that is not a quantizer's codes")
        if not is_constant(bound):
            raise DeclineError(f"the bound of a {kind} is not constant")
        limit = int(bound.value.numpy())
        qparams = quantizer.qparams
        low = max(qparams.qmin, limit) if kind == "maximum" else qparams.qmin
        high = min(qparams.qmax, limit) if kind == "minimum" else qparams.qmax
        if low >= high or _outside(qparams, low, high):
            raise DeclineError(f"the bounds [{low}, {high}] leave out the zero point")
        return quantize_call(quantizer.data, replace(qparams, qmin=low, qmax=high), quantizer.dtype)

    def _kind(self, value: Expr) -> str | None:
        """``maximum`` or ``minimum`` for a call of such a loop."""
        if op_name(value) != CALL_TIR or len(value.args) < 2:
            return None
        name = getattr(value.args[0], "name_hint", "")
        is_pair = isinstance(value.args[1], relax.Tuple) and len(value.args[1].fields) == 2
        return self._extremes.get(name) if is_pair else None


def _outside(qparams: QuantParams, low: int, high: int) -> bool:
    """Whether a zero point lies outside of the bounds."""
    zero_point = qparams.zero_point
    return bool((zero_point < low).any() or (zero_point > high).any())


def extreme_of(function: Any) -> str | None:
    """Return what an element loop computes.

    Args:
        function: a PrimFunc.

    Returns:
        ``maximum`` or ``minimum`` where it stores just that of a tensor's element and a scalar.
    """
    node = function.body
    while not isinstance(node, tirx.BufferStore):
        inner = getattr(node, "body", None)
        node = inner if inner is not None else getattr(node, "block", None)
        if node is None:
            return None
    value = node.value
    kinds = {tirx.Max: "maximum", tirx.Min: "minimum"}
    kind = kinds.get(type(value))
    if kind is None or not all(hasattr(side, "indices") for side in (value.a, value.b)):
        return None
    same = [index.same_as(at) for index, at in zip(value.a.indices, node.indices, strict=False)]
    is_element = len(value.a.indices) == len(node.indices) and all(same)
    return kind if is_element and len(value.b.indices) == 0 else None
