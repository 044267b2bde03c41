"""Methods as data."""

import pytest

from vitq.numerics.errors import VitqError
from vitq.quantization.plan.methods import METHODS, RangeRule, get_method


@pytest.mark.parametrize(
    ("name", "rule", "reparameterize"),
    [
        ("minmax", RangeRule.MINMAX, False),
        ("percentile", RangeRule.PERCENTILE, False),
        ("repq", RangeRule.MSE, True),
    ],
)
def test_get_method(name: str, rule: RangeRule, reparameterize: bool) -> None:
    method = get_method(name)
    assert (method.name, method.rule, method.reparameterize) == (name, rule, reparameterize)
    assert method.source


def test_an_unknown_method_lists_the_choices() -> None:
    with pytest.raises(VitqError, match="'gptq' is unknown") as raised:
        get_method("gptq")
    assert all(name in str(raised.value) for name in METHODS)
