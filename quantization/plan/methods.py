"""Calibration methods as data: each combines parts that stand in files of their own.

| part | choices | file |
|---|---|---|
| ranges | extremes, percentile, smallest squared error | `observers`, `search` |
| objective | values, a product's output, the prediction | `hessian_walk`, `prediction_walk` |
| what an error weighs | alike, or by importance for the predictions | `importance` |
| what layers are calibrated on | float values, or what quantized layers produce | `sequential` |
| LayerNorm | layer-wise, or channel-wise and reparameterized | `reparameterize` |
| attention | uniform, log2, log sqrt 2, twin, adaptive | `attention_codes`, `attention_search` |
| GELU | one range, twin ranges | `search` |
| V | as it is, or equalized | `equalize` |
| keys | as they are, or centered | `center_keys` |
| weights | nearest, clipped, with feedback; bias corrected or not | `weight_rounding`, `layers` |
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from vitq.numerics.errors import VitqError, nearest


class AttentionForm(StrEnum):
    """What a method asks of attention weights."""

    UNIFORM = "uniform"
    LOG2 = "log2"
    LOG_SQRT2 = "log_sqrt2"
    TWIN = "twin"
    ADAPTIVE = "adaptive"


class RangeRule(StrEnum):
    """How the range of a tensor is cut."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


class GeluRanges(StrEnum):
    """How many ranges a GELU's quantizer has."""

    ONE = "one"
    TWIN = "twin"
    SPLIT = "split"


class WeightRounding(StrEnum):
    """How weights become codes (`quantization.ranges.weight_rounding`)."""

    NEAREST = "nearest"
    CLIPPED = "clipped"
    FEEDBACK = "feedback"


class Search(StrEnum):
    """What the scales of products are searched by."""

    NONE = "none"
    VALUES = "values"
    HESSIAN = "hessian"
    PREDICTION = "prediction"


DAMPING, DAMPING_MADE = 0.01, 0.1
"""Of rounding with feedback; the second for calibration pictures that were made from the model.

It is added to the diagonal of ``E[x x^T]``, as a share of its mean (GPTQ's published code: 0.01).
Made pictures say less about what a layer reads: on 68 real pictures DeiT-Tiny's logits at W4/A8
came out 0.5 to 0.8 dB closer with 0.03 to 1, for real calibration pictures 0.2 dB further off.
"""


@dataclass(frozen=True)
class Method:
    """A post-training quantization method.

    Attributes:
        name: as on the command line.
        rule: how ranges of activations are cut.
        reparameterize: RepQ-ViT's channel-wise to layer-wise step behind LayerNorm.
        source: where it comes from.
        attention: codes of attention weights; other than uniform ones are as wide as activations.
        log_zero: whether a weight beyond the last log code is 0.
        search: what scales are searched by: nothing but observers' statistics, or node by node
            (`quantization.ranges.sequential`) the error of the values, of a product's output
            (`quantization.ranges.hessian_walk`) or of the prediction
            (`quantization.ranges.prediction_walk`).
        sequential: each layer is calibrated on what the quantized layers before it produce.
        weighted: errors weigh as much as they matter for the predictions.
        gelu: ranges of post-GELU codes below 8 bits.
        migrate: only as much of the channels' differences goes into the weights as pays.
        equalize: V's channels are shifted and scaled (`of_results`).
        center: keys lose the mean of each channel (`quantization.ranges.center_keys`).
        rounding: how weights become codes.
        correct_bias: a layer's bias is such that its mean output is the float network's.
        damping: of rounding with feedback.
    """

    name: str
    rule: RangeRule
    reparameterize: bool
    source: str
    attention: AttentionForm = AttentionForm.UNIFORM
    log_zero: bool = True
    search: Search = Search.NONE
    sequential: bool = False
    weighted: bool = False
    gelu: GeluRanges = GeluRanges.ONE
    migrate: bool = False
    equalize: bool = False
    center: bool = False
    rounding: WeightRounding = WeightRounding.NEAREST
    correct_bias: bool = False
    damping: float = DAMPING

    def of_results(self, are_features: bool) -> "Method":
        """Return the method as it is for a model's results: features where none is called logits.

        They are compared by angle, which shows errors that no first choice does. For them every
        method that moves scales into weights equalizes V and centers keys, too, which is free at
        run time.
        """
        if not are_features or not self.reparameterize:
            return self
        return replace(self, equalize=True, center=True)


METHODS = {
    method.name: method
    for method in (
        Method("minmax", RangeRule.MINMAX, False, "extremes of the calibration data"),
        Method("percentile", RangeRule.PERCENTILE, False, "99.99 % of the calibration data"),
        Method(
            "repq",
            RangeRule.MSE,
            True,
            "RepQ-ViT (arXiv:2212.08254)",
            attention=AttentionForm.LOG_SQRT2,
            search=Search.VALUES,
            sequential=True,
            rounding=WeightRounding.FEEDBACK,
            correct_bias=True,
        ),
        Method(
            "ptq4vit",
            RangeRule.MINMAX,
            False,
            "PTQ4ViT (arXiv:2111.12293)",
            attention=AttentionForm.TWIN,
            search=Search.HESSIAN,
            weighted=True,
            gelu=GeluRanges.TWIN,
        ),
        Method(
            "pdquant",
            RangeRule.MSE,
            False,
            "PD-Quant (arXiv:2212.07048)",
            search=Search.PREDICTION,
            sequential=True,
            rounding=WeightRounding.CLIPPED,
        ),
        Method(
            "best",
            RangeRule.MSE,
            True,
            "RepQ-ViT, AdaLog (arXiv:2407.12951), PTQ4ViT (arXiv:2111.12293), "
            "GPTQ (arXiv:2210.17323)",
            attention=AttentionForm.ADAPTIVE,
            search=Search.VALUES,
            sequential=True,
            weighted=True,
            gelu=GeluRanges.SPLIT,
            migrate=True,
            equalize=True,
            rounding=WeightRounding.FEEDBACK,
            correct_bias=True,
        ),
    )
}


def get_method(name: str) -> Method:
    """Look a method up; an unknown name is a user's error that lists the choices."""
    if name not in METHODS:
        raise VitqError(
            f"method {name!r} is unknown{nearest(name, METHODS)}: choose {', '.join(METHODS)}"
        )
    return METHODS[name]
