"""Twin attention weights against PTQ4ViT's equations in floats and in Python integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    SMALLEST_CODE_SUM,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax_codes,
)
from vitq.numerics.twin_codes import (
    ONE_RANGE,
    TWIN_BITS,
    TwinCodes,
    check_twin_codes,
    twin_choices,
    twin_weights,
)

ALL = [twin for bits in TWIN_BITS for twin in twin_choices(bits)]
WEIGHTS = np.arange(256)


def papers(w: int, bits: int, m: int) -> Fraction:
    """PTQ4ViT's T_k of x = w / 256, in 1 / 256; half up, and R2's codes from 1 on."""
    x, levels = Fraction(w, 256), 2 ** (bits - 1)
    s2 = Fraction(1, levels)
    s1 = s2 / 2**m
    if x < levels * s1:
        return min((x / s1 + Fraction(1, 2)).__floor__(), levels - 1) * s1 * 256
    return max((x / s2 + Fraction(1, 2)).__floor__(), 1) * s2 * 256


@pytest.mark.parametrize("twin", ALL)
def test_the_papers_equation(twin: TwinCodes) -> None:
    """Every weight, ties and both sides of the border included."""
    wanted = [min(papers(w, twin.bits, twin.coarse - twin.fine), 255) for w in range(256)]
    assert twin_weights(WEIGHTS, twin).tolist() == wanted


@pytest.mark.parametrize("twin", ALL)
def test_codes_and_error(twin: TwinCodes) -> None:
    """At most 2**b weights, in order, 0 and the maximum exact, the stated error elsewhere."""
    found = twin_weights(WEIGHTS, twin)
    assert len(np.unique(found)) <= 2**twin.bits
    assert found[0] == 0 and found[-1] == 255 and np.all(np.diff(found) >= 0)
    error = np.abs(found - WEIGHTS)
    assert error[: twin.border].max() <= 2**twin.fine - 1
    assert error[: twin.border - (1 << twin.fine >> 1)].max() <= 2**twin.fine // 2
    assert error[twin.border :].max() <= 2**twin.coarse // 2


def test_known_weights() -> None:
    """Written out: four bits, fine steps of 4 below 32 and coarse ones of 32 above."""
    fine, coarse = [0, 4, 8, 12, 16, 20, 24, 28], [32, 64, 96, 128, 160, 192, 224, 255]
    assert np.unique(twin_weights(WEIGHTS, TwinCodes(2, 5))).tolist() == fine + coarse
    w = np.array([1, 2, 5, 6, 29, 30, 31, 32, 47, 48, 79, 80, 239, 240, 255])
    wanted = [0, 4, 4, 8, 28, 28, 28, 32, 32, 64, 64, 96, 224, 255, 255]
    assert twin_weights(w, TwinCodes(2, 5)).tolist() == wanted
    exact = twin_weights(np.array([63, 64, 65, 66, 253, 254]), TwinCodes(0, 2))
    assert exact.tolist() == [63, 64, 64, 68, 252, 255]


def test_choices() -> None:
    """The coarse step is the paper's; a fine range that R2 would leave a hole above is none."""
    assert twin_choices(4) == tuple(TwinCodes(f, 5) for f in (1, 2, 3, 4))
    assert twin_choices(6) == (TwinCodes(0, 3), TwinCodes(1, 3), TwinCodes(2, 3))
    for twin in ALL:
        assert 2**twin.coarse * 2 ** (twin.bits - 1) == 256
        assert twin.border >= 2 ** (twin.coarse - 1)
    hole = twin_weights(np.arange(256), TwinCodes(0, 5))
    assert np.any(np.diff(hole) < 0)


def test_one_range_changes_nothing() -> None:
    assert (ONE_RANGE.bits, ONE_RANGE.border) == (8, 256)
    np.testing.assert_array_equal(twin_weights(WEIGHTS, ONE_RANGE), WEIGHTS)
    x = np.arange(-500, 0)
    found = shiftmax_codes(x, code_params(0.01, ONE_RANGE))
    np.testing.assert_array_equal(found, shiftmax_codes(x, code_params(0.01)))


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**15), 2**15), min_size=1, max_size=12),
    st.floats(2.0**-14, 1.0),
    st.sampled_from(ALL),
)
def test_shiftmax_codes_are_the_twins_of_the_uniform_ones(
    row: list[int], scale: float, twin: TwinCodes
) -> None:
    x = np.array(row)
    uniform = shiftmax_codes(x, code_params(scale))
    wanted = [min(papers(int(w), twin.bits, twin.coarse - twin.fine), 255) for w in uniform]
    assert shiftmax_codes(x, code_params(scale, twin)).tolist() == wanted


@pytest.mark.parametrize("twin", ALL)
def test_attention_keeps_a_constant(twin: TwinCodes) -> None:
    """The row is divided by the sum of the weights that it was multiplied by."""
    x = np.random.default_rng(0).integers(-3000, 3000, (3, 50))
    codes = shiftmax_codes(x, code_params(0.001, twin))
    out = QuantParams.per_tensor(0.5, 3, -128, 127)
    norm = normalize_params(1.0, SMALLEST_CODE_SUM, out)
    result = normalized_matmul(codes, np.full((50, 2), 77), 3, norm)
    np.testing.assert_array_equal(result, np.full((3, 2), 77))


@pytest.mark.parametrize("twin", [(0, 5), (5, 5), (0, 1), (1, 0), (-1, 3), (0, 8), (3, 2)])
def test_other_ranges_are_refused(twin: tuple[int, int]) -> None:
    with pytest.raises(VitqError, match=r"choose .*\(1, 5\), \(2, 5\)"):
        check_twin_codes(TwinCodes(*twin))
    with pytest.raises(VitqError, match="twin attention weights"):
        code_params(0.01, TwinCodes(*twin))


@pytest.mark.parametrize("bits", [1, 8])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(VitqError, match=f"of {bits} bits: choose 2 to 7"):
        twin_choices(bits)
