"""A GELU's table gives its bits, for every code; a GELU that changes too fast has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.compiler.kernels.cuda.gelu_table import TABLE_SIZES, gelu_table, look_up
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import GeluParams, gelu_params, shiftgelu
from vitq.numerics.twin import Twin

SIXTEEN = (-(2**15), 2**15 - 1)


def _assert_same(p: GeluParams, qmin: int, qmax: int) -> bool:
    """Whether there is a table; if so, it is right for all codes."""
    table = gelu_table(p, qmin, qmax)
    if table is None:
        return False
    assert table.words.size in TABLE_SIZES
    codes = np.arange(qmin, qmax + 1)
    expected = shiftgelu(codes, p).astype(np.uint8)
    np.testing.assert_array_equal(look_up(codes, table), expected)
    return True


@settings(deadline=None, max_examples=60)
@given(
    log_scale=st.floats(-13, -8),
    ratio=st.floats(16, 90),
    zero_point=st.integers(-128, -100),
    x_zero_point=st.integers(-500, 500),
)
def test_every_code(log_scale: float, ratio: float, zero_point: int, x_zero_point: int) -> None:
    scale = 2.0**log_scale
    out = QuantParams.per_tensor(scale * ratio, zero_point, -128, 127)
    p = gelu_params(scale, x_zero_point, out)
    _assert_same(p, *SIXTEEN)


def test_what_a_trained_model_has_fits() -> None:
    """Input and output scales of DeiT-Tiny's first and third block."""
    for scale, ratio, zero_point in ((6.65e-4, 52.2, -123), (3.81e-4, 28.1, -114)):
        out = QuantParams.per_tensor(scale * ratio, zero_point, -128, 127)
        assert _assert_same(gelu_params(scale, 0, out), *SIXTEEN)


def test_eight_bit_codes_and_bounds() -> None:
    out = QuantParams.per_tensor(0.02, -120, -128, 127)
    _assert_same(gelu_params(0.04, 3, out), -128, 127)
    narrow = QuantParams.per_tensor(0.3, -6, -8, 7)
    assert _assert_same(gelu_params(0.004, 0, narrow), -2000, 2000)


def test_twin_ranges() -> None:
    out = QuantParams.per_tensor(0.006, -100, -128, 127)
    assert _assert_same(gelu_params(2.0**-12, 0, out, Twin(-90, 4)), *SIXTEEN)


def test_a_result_as_fine_as_its_codes_has_no_table() -> None:
    out = QuantParams.per_tensor(0.01, -120, -128, 127)
    assert gelu_table(gelu_params(0.01, 0, out), -128, 127) is None


@pytest.mark.parametrize("bounds", [(5, 5), (100, 200)])
def test_a_constant_part(bounds: tuple[int, int]) -> None:
    out = QuantParams.per_tensor(2.0, 0, -128, 127)
    assert _assert_same(gelu_params(2.0**-12, 0, out), *bounds)
