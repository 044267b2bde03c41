"""LowerShiftmax: softmax becomes Shiftmax."""

import numpy as np

from vitq.numerics import ivit
from vitq.numerics.families import Nonlinear
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.nonlinear import softmax_params
from vitq.numerics.shiftmax import CODE_SCALE, code_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import Expr, normalize_axis, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.exponents import read_exponent
from vitq.relay_passes.reading.matching import Codes, Quantizer
from vitq.relay_passes.rewriting import BindingPass


class LowerShiftmax(BindingPass):
    """Lowers both forms of softmax that a QDQ graph can carry.

    Before -> after::

        quantize(exp(x - max(x)), 1/255, 0)  -> vitq.shiftmax_codes(x)     # not normalized
        quantize(exp(grid(x - max(x))), 1/255, 0)  -> the same: log codes, `exponents.read_exponent`
        quantize(softmax(x), s, z)           -> vitq.shiftmax(x)           # normalized

    and with nonlinear = ivit::

        quantize(softmax(x), 1/128, 0)       -> vitq.ivit_shiftmax(x)

    over the last axis, x = dequantize of codes or of an accumulator, one scale; its zero point
    cancels. Error: see ``numerics/shiftmax.py`` and ``numerics/ivit.py``. Refuses another axis, a
    per-channel scale, an exponential that is not stored in uint8 with scale 1/255 and zero point 0,
    I-ViT's probabilities with other parameters than 1/128 and 0, and scores that are not quantized.
    """

    requires = (Property.PRODUCTS_LOWERED,)
    ensures = (Property.SOFTMAX_LOWERED,)

    def __init__(self, nonlinear: Nonlinear = Nonlinear.VITQ) -> None:
        """Choose the family."""
        super().__init__()
        self._nonlinear = nonlinear

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        out = ctx.quantizer(value)
        if out is None:
            return None
        exp = ctx.call(out.data, "relax.exp")
        if exp is not None:
            if not self._nonlinear.defers_normalization:
                raise DeclineError("I-ViT's Shiftmax has no unnormalized form: nonlinear = vitq")
            return _codes(exp, out, ctx)
        softmax = ctx.call(out.data, "relax.nn.softmax")
        if softmax is None:
            return None
        scores = _softmax_scores(softmax, ctx)
        if self._nonlinear is Nonlinear.IVIT:
            _check_ivit_output(out)
        elif not out.is_per_tensor:
            raise DeclineError("the probabilities have a scale for each channel")
        params = softmax_params(self._nonlinear, float(scores.scale), out.qparams)
        if isinstance(params, ivit.IvitSoftmaxParams):
            return dialect.ivit_shiftmax(scores.codes, params)
        return dialect.shiftmax(scores.codes, *params, out.dtype)


def _scores(codes: Codes | None) -> Codes:
    """Check that scores are integers of one scale."""
    if codes is None:
        raise DeclineError("the scores are not quantized")
    if not codes.is_per_tensor:
        raise DeclineError("the scores have a scale for each channel")
    return codes


def _codes(exp: Expr, out: Quantizer, ctx: Context) -> Expr:
    """Return the unnormalized form."""
    exponent = read_exponent(exp.args[0], ctx)
    scores = _scores(ctx.codes(exponent.scores))
    qparams = out.qparams
    if out.dtype != "uint8" or not out.is_per_tensor:
        raise DeclineError("the exponential's codes are not uint8 with one scale")
    if np.float32(qparams.scale) != CODE_SCALE or int(qparams.zero_point) != 0:
        raise DeclineError("the exponential's codes do not have scale 1/255 and zero point 0")
    scale = float(scores.scale)
    grid = exponent.grid
    params = code_params(scale) if grid is None else log_code_params(scale, *grid)
    return dialect.shiftmax_codes(scores.codes, params)


def _softmax_scores(softmax: Expr, ctx: Context) -> Codes:
    """Return what a softmax over the last axis reads."""
    rank = len(shape_of(softmax))
    if normalize_axis(int(softmax.attrs.axis), rank) != rank - 1:
        raise DeclineError("softmax is not over the last axis")
    return _scores(ctx.codes(softmax.args[0]))


def _check_ivit_output(out: Quantizer) -> None:
    """I-ViT's codes have one meaning only."""
    qparams = out.qparams
    if out.dtype != "uint8" or not out.is_per_tensor:
        raise DeclineError("I-ViT's probabilities are not uint8 with one scale")
    if np.float32(qparams.scale) != ivit.CODE_SCALE or int(qparams.zero_point) != 0:
        raise DeclineError("I-ViT's probabilities do not have scale 1/128 and zero point 0")
    if qparams.qmax < ivit.CODE_MAX:  # qmin is 0: the zero point is, and the type is unsigned
        raise DeclineError(f"I-ViT's probabilities reach {ivit.CODE_MAX}, not {qparams.qmax}")
