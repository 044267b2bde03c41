"""CanonicalizeQdq: one form for weights, biases and constants beside operators."""

import numpy as np
from tvm import relax

from vitq.relay_passes.expressions import Expr, constant, dtype_of, is_constant, op_name
from vitq.relay_passes.properties import COMMUTATIVE, Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import QUANTIZERS, Codes, read_dequantize
from vitq.relay_passes.reading.tracing import layout_chain
from vitq.relay_passes.rewriting import BindingPass


class CanonicalizeQdq(BindingPass):
    """Brings quantized constants into the form that the lowering passes read.

    ============================================  ===============================================
    before                                        after
    ============================================  ===============================================
    dequantize(uint8 constant, s, zero point z)   dequantize(int8 constant - z, s, 0) where it fits
    dequantize(c, s of one element, axis)         dequantize(c, scalar s)
    add(constant, x), multiply(constant, x)       add(x, constant), multiply(x, constant)
    quantize(dequantize(x, s, z), s, z)           x
    ============================================  ===============================================

    Exact. The last row is what QDQ tools leave around layout operators once `SinkDequantize`
    has passed; it refuses where the storage types differ.
    """

    requires = (Property.CLIPS_FOLDED, Property.LAYOUT_CANONICAL)
    ensures = (Property.QDQ_CANONICAL,)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        name = op_name(value)
        if name == "relax.dequantize":
            found = read_dequantize(value)
            if found is None:
                raise DeclineError("its scale or zero point is not constant")
            return _signed(value, found)
        if name in COMMUTATIVE:
            left, right = value.args
            if ctx.real(left) is not None and ctx.real(right) is None:
                return relax.Call(value.op, [right, left], value.attrs, value.ty_args)
        if name in QUANTIZERS:
            return _identity(value, ctx)
        return None


def _signed(call: Expr, found: Codes) -> Expr | None:
    """Rewrite an unsigned or shifted constant as int8 codes with zero point 0."""
    codes = found.array
    if codes is None or not np.any(found.zero_point):
        return None
    centred = codes.astype(np.int64) - found.broadcast(found.zero_point)
    if centred.min() < -128 or centred.max() > 127:
        return None
    zeros = np.zeros(np.shape(found.zero_point), np.int8)
    args = [constant(centred.astype(np.int8)), call.args[1], constant(zeros)]
    return relax.Call(call.op, args, call.attrs, call.ty_args)


def _identity(call: Expr, ctx: Context) -> Expr | None:
    """Return the codes themselves, where a quantizer repeats their own parameters."""
    out = ctx.quantizer(call)
    codes = None if out is None else ctx.codes(out.data)
    if codes is None or out is None:
        return None
    qparams = out.qparams
    same = (
        codes.axis == out.axis
        and np.array_equal(codes.scale, qparams.scale.astype(np.float64))
        and np.array_equal(codes.zero_point, qparams.zero_point)
    )
    if not same:
        return None
    if dtype_of(codes.codes) != out.dtype:
        raise DeclineError("the quantizer has the scale of its input, but another storage type")
    low, high = _bounds(codes.codes, ctx)
    return codes.codes if qparams.qmin <= low and high <= qparams.qmax else None


def _bounds(codes: Expr, ctx: Context) -> tuple[int, int]:
    """Return the bounds of what made some codes; their type's where that is not a quantizer."""
    root, _ = layout_chain(codes, ctx.definition)
    quantizer = ctx.quantizer(root)
    if quantizer is not None:
        return quantizer.qparams.qmin, quantizer.qparams.qmax
    if is_constant(root):
        array = root.value.numpy()
        return int(array.min()), int(array.max())
    info = np.iinfo(dtype_of(codes))
    return int(info.min), int(info.max)
