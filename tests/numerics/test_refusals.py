"""Parameters that no integer operator has: each is refused by name."""

import numpy as np
import pytest

from vitq.numerics.dyadic import to_dyadic, to_shared_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import layernorm_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import normalize_params

OUT = QuantParams(np.float32(0.1), np.int32(0), -128, 127)


def test_factors_that_are_too_large() -> None:
    for make in (to_dyadic, lambda factor: to_shared_dyadic([factor], 31, 62)):
        with pytest.raises(RangeError, match=r"a requantization factor of 1e\+300 is too large"):
            make(1e300)
        with pytest.raises(RangeError, match="a requantization factor is not finite"):
            make(np.inf)
    with pytest.raises(RangeError, match=r"a normalization factor of 1e\+300 is too large"):
        normalize_params(1e300, 1, OUT)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_normalization_factors_that_are_none(factor: float) -> None:
    with pytest.raises(RangeError, match="a normalization factor is not a positive finite number"):
        normalize_params(factor, 1, OUT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_layernorm_weights_that_are_not_finite(value: float) -> None:
    gamma, beta = np.array([1.0, value], np.float32), np.zeros(2, np.float32)
    for pair in ((gamma, beta), (np.ones(2, np.float32), gamma)):
        with pytest.raises(RangeError, match="LayerNorm weights are not finite"):
            layernorm_params(0.1, 1e-6, *pair, OUT)
