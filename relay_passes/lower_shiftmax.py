"""LowerShiftmax: softmax becomes Shiftmax."""

import numpy as np

from numerics import ivit
from numerics.shiftmax import (
    CODE_SCALE,
    SMALLEST_WIDE_SUM,
    normalize_params,
    shiftmax_params,
)
from relay_passes import dialect
from relay_passes.matching import Codes, Expr, Quantizer, ints, normalize_axis, shape_of
from relay_passes.nonlinear import Nonlinear
from relay_passes.rewriting import BindingPass, Context, DeclineError


class LowerShiftmax(BindingPass):
    """Lowers both forms of softmax that a QDQ graph can carry.

    Before -> after::

        quantize(exp(x - max(x)), 1/255, 0)  -> vitq.shiftmax_codes(x)     # not normalized
        quantize(softmax(x), s, z)           -> vitq.shiftmax(x)           # normalized

    and with nonlinear = ivit::

        quantize(softmax(x), 1/128, 0)       -> vitq.ivit_shiftmax(x)

    over the last axis, x = dequantize of codes or of an accumulator, one scale; its zero point
    cancels. Error: see ``numerics/shiftmax.py`` and ``numerics/ivit.py``. Refuses another axis, a
    per-channel scale, an exponential that is not stored in uint8 with scale 1/255 and zero point 0,
    I-ViT's probabilities with other parameters than 1/128 and 0, and scores that are not quantized.
    """

    def __init__(self, nonlinear: Nonlinear = Nonlinear.VITQ) -> None:
        """Choose the family."""
        super().__init__()
        self._ivit = nonlinear is Nonlinear.IVIT

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        exp = ctx.call(out.data, "relax.exp")
        if exp is not None:
            if self._ivit:
                raise DeclineError("I-ViT's Shiftmax has no unnormalized form: nonlinear = vitq")
            return _codes(exp, out, ctx)
        softmax = ctx.call(out.data, "relax.nn.softmax")
        if softmax is None:
            return None
        scores = _softmax_scores(softmax, ctx)
        return _ivit(scores, out) if self._ivit else _normalized(scores, out)


def _scores(codes: Codes | None) -> Codes:
    """Check that scores are integers of one scale."""
    if codes is None:
        raise DeclineError("the scores are not quantized")
    if not codes.is_per_tensor:
        raise DeclineError("the scores have a scale for each channel")
    return codes


def _codes(exp: Expr, out: Quantizer, ctx: Context) -> Expr:
    """The unnormalized form."""
    difference = ctx.call(exp.args[0], "relax.subtract")
    largest = None if difference is None else ctx.call(difference.args[1], "relax.max")
    if difference is None or largest is None or largest.args[0] != difference.args[0]:
        raise DeclineError("an exponential that is not exp(x - max(x))")
    rank = len(shape_of(exp))
    axes = [] if largest.attrs.axis is None else ints(largest.attrs.axis)
    if [normalize_axis(axis, rank) for axis in axes] != [rank - 1] or not largest.attrs.keepdims:
        raise DeclineError("the maximum is not over the last axis")
    scores = _scores(ctx.codes(difference.args[0]))
    qparams = out.qparams
    if out.dtype != "uint8" or not out.is_per_tensor:
        raise DeclineError("the exponential's codes are not uint8 with one scale")
    if np.float32(qparams.scale) != CODE_SCALE or int(qparams.zero_point) != 0:
        raise DeclineError("the exponential's codes do not have scale 1/255 and zero point 0")
    return dialect.shiftmax_codes(scores.codes, shiftmax_params(float(scores.scale)))


def _softmax_scores(softmax: Expr, ctx: Context) -> Codes:
    """What a softmax over the last axis reads."""
    rank = len(shape_of(softmax))
    if normalize_axis(int(softmax.attrs.axis), rank) != rank - 1:
        raise DeclineError("softmax is not over the last axis")
    return _scores(ctx.codes(softmax.args[0]))


def _normalized(scores: Codes, out: Quantizer) -> Expr:
    """The normalized form."""
    if not out.is_per_tensor:
        raise DeclineError("the probabilities have a scale for each channel")
    norm = normalize_params(1.0 / float(out.qparams.scale), SMALLEST_WIDE_SUM, out.qparams)
    params = shiftmax_params(float(scores.scale))
    return dialect.shiftmax(scores.codes, params, norm, out.dtype)


def _ivit(scores: Codes, out: Quantizer) -> Expr:
    """I-ViT's form, whose codes have one meaning only."""
    qparams = out.qparams
    if out.dtype != "uint8" or not out.is_per_tensor:
        raise DeclineError("I-ViT's probabilities are not uint8 with one scale")
    if np.float32(qparams.scale) != ivit.CODE_SCALE or int(qparams.zero_point) != 0:
        raise DeclineError("I-ViT's probabilities do not have scale 1/128 and zero point 0")
    if qparams.qmax < ivit.CODE_MAX:  # qmin is 0: the zero point is, and the type is unsigned
        raise DeclineError(f"I-ViT's probabilities reach {ivit.CODE_MAX}, not {qparams.qmax}")
    return dialect.ivit_shiftmax(scores.codes, ivit.ivit_softmax_params(float(scores.scale)))
