"""Reads twin ranges: a sum of two quantizers of one GELU, and the quantizer of the sum."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import GeluParams
from vitq.numerics.twin import LARGEST_SHIFT, Twin, threshold
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, is_constant
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import Codes, Quantizer

SPELLING = 1e-5
"""How far a file's split may be off, in fine steps."""


class TwinGelu(NamedTuple):
    """What a twin quantizer reads and means.

    Attributes:
        data: of the GELU.
        out: fine step and bounds.
        twin: its two ranges.
    """

    data: Expr
    out: QuantParams
    twin: Twin


def read_twin(out: Quantizer, ctx: Context) -> TwinGelu | None:
    """Recognize ``quantize(fine + coarse)`` of a GELU.

    ``fine = dequantize(quantize(gelu(x), s, z, [qmin, k]))`` and ``coarse =
    dequantize(quantize(gelu(x) - t, s 2**m, 0, [0, n]))`` with ``t = (k - z) s``.

    Args:
        out: the quantizer of the sum, with s and z.
        ctx: the function; the fine part may be lowered already.

    Returns:
        None for anything else.

    Raises:
        DeclineError: for two quantizers of one GELU that fit no twin quantizer.
    """
    total = ctx.call(out.data, "relax.add")
    parts = [] if total is None else [ctx.codes(arg) for arg in total.args]
    if len(parts) != 2 or parts[0] is None or parts[1] is None or not out.is_per_tensor:
        return None
    fine, coarse = parts[0], ctx.quantizer(parts[1].codes)
    above = None if coarse is None else ctx.call(coarse.data, "relax.subtract")
    gelu = None if above is None else ctx.call(above.args[0], "relax.nn.gelu", "relax.nn.gelu_tanh")
    if coarse is None or above is None or gelu is None:
        return None
    limits = _fine_limits(fine, above.args[0], gelu.args[0], ctx)
    scale, zero_point = np.float32(out.qparams.scale), int(out.qparams.zero_point)
    same = np.float32(fine.scale) == scale and int(fine.zero_point) == zero_point
    if limits is None or not same:
        raise DeclineError("the fine range of a twin quantizer has other steps than the sum")
    twin = Twin(limits[1], _shift(scale, coarse.qparams))
    top = twin.split + (coarse.qparams.qmax << twin.shift)
    if limits[0] < out.qparams.qmin or top > out.qparams.qmax:
        raise DeclineError("the ranges of a twin quantizer reach beyond the sum's")
    qparams = replace(out.qparams, qmin=limits[0], qmax=top)
    if qparams.dtype.itemsize > 1:
        raise DeclineError("the codes of a twin quantizer do not fit a byte")
    meet = above.args[1]
    if not is_constant(meet) or meet.value.numpy().size != 1:
        raise DeclineError("a twin quantizer splits at something that is no number")
    away = float(meet.value.numpy().reshape(())) - float(threshold(twin, qparams))
    if abs(away) > SPELLING * float(scale):
        raise DeclineError("a twin quantizer does not split at a code of its fine range")
    return TwinGelu(gelu.args[0], qparams, twin)


def _fine_limits(fine: Codes, gelu: Expr, data: Expr, ctx: Context) -> tuple[int, int] | None:
    """Return the bounds of the fine part; None where it is no quantizer of the same GELU."""
    quantizer = ctx.quantizer(fine.codes)
    if quantizer is not None:
        return (quantizer.qparams.qmin, quantizer.qparams.qmax) if quantizer.data == gelu else None
    lowered = ctx.call(fine.codes, names.SHIFTGELU)
    codes = ctx.codes(data)
    if lowered is None or codes is None or dialect.operands(lowered)[0] != codes.codes:
        return None
    p = GeluParams(*dialect.scalars(lowered))
    return p.qmin, p.qmax


def _shift(scale: np.float32, coarse: QuantParams) -> int:
    """M of a coarse step ``scale * 2**m``."""
    ratio = np.log2(float(np.float32(coarse.scale)) / float(scale))
    if ratio != round(ratio) or not 0 <= ratio <= LARGEST_SHIFT:
        raise DeclineError("the steps of a twin quantizer differ by no power of two")
    if int(coarse.zero_point) != 0 or coarse.qmin != 0:
        raise DeclineError("the coarse range of a twin quantizer does not begin at 0")
    return round(ratio)
