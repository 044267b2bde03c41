"""Calibration methods as data: a rule for the ranges, and whether scales are reparameterized."""

from dataclasses import dataclass
from enum import StrEnum

from numerics.errors import VitqError
from quantization.attention_codes import AttentionForm


class RangeRule(StrEnum):
    """How the range of a tensor is cut."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"


@dataclass(frozen=True)
class Method:
    """A post-training quantization method.

    Attributes:
        name: as on the command line.
        rule: how ranges of 8-bit activations are cut.
        reparameterize: RepQ-ViT's channel-wise to layer-wise step behind LayerNorm.
        source: where it comes from.
        attention: codes of attention weights; logarithmic ones are as wide as activations.
        log_zero: whether a weight beyond the last log code is 0.
    """

    name: str
    rule: RangeRule
    reparameterize: bool
    source: str
    attention: AttentionForm = AttentionForm.UNIFORM
    log_zero: bool = True


METHODS = {
    method.name: method
    for method in (
        Method("minmax", RangeRule.MINMAX, False, "extremes of the calibration data"),
        Method("percentile", RangeRule.PERCENTILE, False, "99.99 % of the calibration data"),
        Method("repq", RangeRule.MSE, True, "RepQ-ViT (arXiv:2212.08254)"),
    )
}


def get_method(name: str) -> Method:
    """Look a method up; an unknown name is a user's error that lists the choices."""
    if name not in METHODS:
        raise VitqError(f"method {name!r} is unknown: choose {', '.join(METHODS)}")
    return METHODS[name]
