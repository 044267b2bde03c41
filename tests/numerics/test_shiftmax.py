"""Shiftmax against Python integers and the float softmax."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics import shiftmax as module
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.exp2 import MAX_ERROR, ONE
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    CODE_MAX,
    CODE_SCALE,
    SCORE_LIMIT,
    SMALLEST_CODE_SUM,
    SMALLEST_WIDE_SUM,
    CodeParams,
    NormalizeParams,
    ShiftmaxParams,
    code_params,
    normalize,
    normalize_params,
    normalized_matmul,
    shiftmax,
    shiftmax_codes,
    shiftmax_params,
)

COMMON_SCALES = [0.3, 0.1, 0.02, 0.003, 1e-4]
rows = hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=9))
score_scales = st.floats(2.0**-20, 2.0)


def test_constants_are_as_documented() -> None:
    assert (module.LOG2_FRACTION_BITS, module.NORM_BITS, SCORE_LIMIT) == (12, 31, 2**30 - 1)
    assert (module.CODE_LIMIT, module.WIDE_LIMIT) == (10 * 2**12 - 1, 16 * 2**12 - 1)
    assert (CODE_MAX, SMALLEST_CODE_SUM, SMALLEST_WIDE_SUM) == (255, 255, ONE)
    assert np.float32(1 / 255) == CODE_SCALE


def literal_octaves(
    row: list[int], p: CodeParams | ShiftmaxParams, limit: int
) -> list[tuple[int, int]]:
    """(y, n) of one row, written out with Python integers."""

    def mulhrs(a: int, b: int) -> int:
        return (a * b + 16384) >> 15

    result = []
    for x in row:
        t = ((max(row) - x) * p.multiplier + (1 << (p.shift - 1))) >> p.shift
        t = min(t, limit)
        f = (t % 4096) * 8
        y = 32640 + mulhrs(-22566 + mulhrs(7539 + mulhrs(-1293, f), f), f)
        result.append((y, t // 4096))
    return result


def unsigned(scale: float, qmax: int) -> QuantParams:
    """Codes from zero."""
    return QuantParams.per_tensor(scale, 0, 0, qmax)


def softmax(x: FloatArray) -> FloatArray:
    """Float softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@settings(deadline=None)
@given(rows, score_scales)
def test_codes_match_python_integers(x: IntArray, scale: float) -> None:
    """Any shape; uint8; the maximum has 255."""
    p = code_params(scale)
    codes = shiftmax_codes(x, p)
    assert codes.shape == x.shape
    assert codes.min() >= 0
    assert np.all(codes.max(axis=-1) == CODE_MAX)
    width = x.shape[-1]
    for row, got in zip(x.reshape(-1, width).tolist(), codes.reshape(-1, width), strict=True):
        literal = literal_octaves(row, p, 10 * 4096 - 1)
        assert got.tolist() == [(y + (1 << (6 + n))) >> (7 + n) for y, n in literal]


@settings(deadline=None)
@given(rows, score_scales)
def test_shiftmax_matches_python_integers(x: IntArray, scale: float) -> None:
    """Normalized form, a signed output with a zero point."""
    out = QuantParams.per_tensor(1 / 200, -100, -128, 127)
    p, norm = shiftmax_params(scale), normalize_params(200.0, SMALLEST_WIDE_SUM, out)
    result = shiftmax(x, p, norm)
    width = x.shape[-1]
    for row, got in zip(x.reshape(-1, width).tolist(), result.reshape(-1, width), strict=True):
        e = [(y + ((1 << n) >> 1)) >> n for y, n in literal_octaves(row, p, 16 * 4096 - 1)]
        m = norm.numerator // sum(e)
        rounded = [(v * m + (1 << (norm.shift - 1))) >> norm.shift for v in e]
        assert got.tolist() == [min(max(v - 100, -128), 127) for v in rounded]


@pytest.mark.parametrize("scale", COMMON_SCALES)
def test_code_error_bound(scale: float) -> None:
    """The docstring's bound, for every distance that matters and many beyond."""
    distance = np.arange(int(12 / scale) + 3)
    codes = shiftmax_codes(-distance, code_params(scale))
    exact = 255 * np.exp(-distance * scale)
    assert np.abs(codes - exact).max() <= 0.5 + 255 * (MAX_ERROR + 2.0**-13)


@pytest.mark.parametrize("scale", COMMON_SCALES)
def test_codes_never_rise_with_distance(scale: float) -> None:
    """Order is kept."""
    codes = shiftmax_codes(-np.arange(int(12 / scale) + 3), code_params(scale))
    assert np.diff(codes).max() <= 0


def test_limits_hide_nothing() -> None:
    """At ten (sixteen) octaves below the maximum the code is 0 already."""
    scale = np.log(2) / 64  # 64 steps for each octave
    p = code_params(scale)
    assert shiftmax_codes(np.array([0, -640, -641, -(2**20)]), p).tolist() == [255, 0, 0, 0]
    norm = normalize_params(1.0 * ONE, SMALLEST_WIDE_SUM, unsigned(1 / ONE, ONE))
    octaves = shiftmax_params(scale)
    far = shiftmax(np.array([0, -15 * 64, -16 * 64, -(2**20)]), octaves, norm)
    assert far.tolist() == [ONE - 1, 1, 0, 0]


@pytest.mark.parametrize("scale", [2.0**-28, 1e-6, 1.0, 60000.0])
def test_extreme_scores(scale: float) -> None:
    """Differences of two accumulators are int32, at any scale."""
    x = np.array([SCORE_LIMIT, -SCORE_LIMIT, 0], np.int64)
    p = code_params(scale)
    distances = (SCORE_LIMIT - x) * scale
    exact = 255 * np.exp(-np.minimum(distances, 100))
    assert np.abs(shiftmax_codes(x, p) - exact).max() <= 0.5 + 255 * (MAX_ERROR + 2.0**-13)


@settings(deadline=None)
@given(rows, score_scales, st.integers(-(2**20), 2**20))
def test_shift_and_order_do_not_matter(x: IntArray, scale: float, offset: int) -> None:
    """A constant on all scores cancels; tokens are treated alike."""
    p = code_params(scale)
    codes = shiftmax_codes(x, p)
    np.testing.assert_array_equal(codes, shiftmax_codes(x.astype(np.int64) + offset, p))
    np.testing.assert_array_equal(codes[..., ::-1], shiftmax_codes(x[..., ::-1], p))


@pytest.mark.parametrize("scale", COMMON_SCALES)
@pytest.mark.parametrize("tokens", [1, 2, 50, 197, 577])
def test_shiftmax_error(scale: float, tokens: int) -> None:
    """One half step, and a few 1e-4 for the exponential and the division."""
    rng = np.random.default_rng(tokens)
    x = np.rint(rng.normal(0, 2, (20, tokens)) / scale).astype(np.int64)
    for qmax in (255, 2**15 - 1):
        norm = normalize_params(float(qmax), SMALLEST_WIDE_SUM, unsigned(1 / qmax, qmax))
        probability = shiftmax(x, shiftmax_params(scale), norm)
        error = np.abs(probability / qmax - softmax(x * scale))
        assert error.max() <= 0.5 / qmax + 6e-4


def test_sum_of_longest_row_is_int32() -> None:
    """2**16 equal scores: the largest sum there is."""
    assert 2**16 * ONE <= 2**31 - 1
    norm = normalize_params(2.0**20, SMALLEST_WIDE_SUM, unsigned(2.0**-20, 2**20))
    result = shiftmax(np.zeros((1, 2**16), np.int8), shiftmax_params(0.1), norm)
    assert np.abs(result - 2**4).max() <= 1


@settings(deadline=None)
@given(
    st.floats(2.0**-20, 2.0**15),
    st.sampled_from([SMALLEST_CODE_SUM, SMALLEST_WIDE_SUM]),
)
def test_normalize_params(factor: float, smallest: int) -> None:
    """The multiplier is an int32 for every row, the factor's error as documented."""
    p = normalize_params(factor, smallest, unsigned(1.0, 255))
    assert 1 <= p.shift <= 46
    assert p.numerator // smallest < 2**31
    error = abs(Fraction(p.numerator, 2**p.shift) - Fraction(factor))
    assert error <= max(Fraction(factor) / 2**30, Fraction(1, 2**47))


@pytest.mark.parametrize(
    ("factor", "numerator", "shift"),
    [
        (1.0, 2**37, 37),  # 1 / 255 is 0.502 * 2**-7
        (2.0**-20, 2**26, 46),
        (1000.75 * 2.0**-46, 1001, 46),
        (255 * 2.0**28, 255 * 2**29, 1),
    ],
)
def test_known_normalize_params(factor: float, numerator: int, shift: int) -> None:
    """The largest shift, the smallest one, and a numerator that is rounded."""
    p = normalize_params(factor, SMALLEST_CODE_SUM, unsigned(1.0, 255))
    assert p == NormalizeParams(numerator, shift, 0, 0, 255)
    with pytest.raises(RangeError, match="is too large: check the scales"):
        normalize_params(255 * 2.0**29, SMALLEST_CODE_SUM, unsigned(1.0, 255))


def test_params_of_uniform_codes_and_of_their_division() -> None:
    assert code_params(0.01)[2:] == (12, module.CODE_LIMIT, 0, 0, 0)
    out = unsigned(0.25, 255)
    found = module.normalized_matmul_params(0.5, out)
    assert found == normalize_params(2.0, SMALLEST_CODE_SUM, out)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_normalize_params_refuses(factor: float) -> None:
    """A factor comes from scales, which are positive."""
    with pytest.raises(RangeError, match="not a positive finite number"):
        normalize_params(factor, 255, unsigned(1.0, 255))


def test_normalize_params_too_large() -> None:
    """The message names the factor and the remedy."""
    with pytest.raises(RangeError, match=r"factor of 1e\+15 is too large: check the scales"):
        normalize_params(1e15, 255, unsigned(1.0, 255))


@settings(deadline=None)
@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(255, 2**31 - 1),
    st.floats(2.0**-20, 2.0**10),
    st.integers(-128, 127),
)
def test_normalize(acc: int, total: int, factor: float, zero_point: int) -> None:
    """The formula with Python integers; nothing leaves int64."""
    out = QuantParams.per_tensor(1.0, zero_point, -128, 127)
    p = normalize_params(factor, SMALLEST_CODE_SUM, out)
    product = acc * (p.numerator // total) + 2 ** (p.shift - 1)
    assert abs(product) < 2**63
    expected = min(max((product >> p.shift) + zero_point, -128), 127)
    assert normalize(np.array([acc]), np.array([total]), p).tolist() == [expected]


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.integers(-128, 127),
    st.integers(-128, 127),
    st.integers(0, 2**32 - 1),
)
def test_attention_keeps_a_constant(tokens: int, value: int, zero_point: int, seed: int) -> None:
    """Weights that sum to one return a constant V: no mass is lost, at any length."""
    x = np.random.default_rng(seed).integers(-(2**15), 2**15, (3, tokens))
    codes = shiftmax_codes(x, code_params(0.001))
    out = QuantParams.per_tensor(0.5, zero_point, -128, 127)
    p = normalize_params(1.0, SMALLEST_CODE_SUM, out)
    result = normalized_matmul(codes, np.full((tokens, 2), value), zero_point, p)
    np.testing.assert_array_equal(result, np.full((3, 2), value))


@pytest.mark.parametrize("tokens", [5, 197])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_attention_against_float(tokens: int, dtype: type[np.integer]) -> None:
    """Batched, with zero points; half a step and the codes' own errors."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3000, 3000, (2, 3, 7, tokens))
    info = np.iinfo(dtype)
    value = rng.integers(info.min, info.max + 1, (2, 3, tokens, 4)).astype(dtype)
    zero_point = (info.min + info.max) // 2 + 5
    out = QuantParams.per_tensor(0.02, 3, -128, 127)
    p = normalize_params(0.02 / 0.02, SMALLEST_CODE_SUM, out)
    codes = shiftmax_codes(x, code_params(0.001))
    result = normalized_matmul(codes, value, zero_point, p)
    centred = value.astype(np.float64) - zero_point
    weights = codes / codes.sum(axis=-1, keepdims=True)
    exact = np.clip(weights @ centred + 3, -128, 127)
    assert np.abs(result - exact).max() <= 0.5 + 1e-4
    error = np.clip(softmax(x * 0.001) @ centred + 3, -128, 127) - result
    assert np.abs(error).max() <= 1.0


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    assert ShiftmaxParams._fields == ("multiplier", "shift")
    assert CodeParams._fields == (
        "multiplier",
        "shift",
        "grid_bits",
        "limit",
        "zero_last",
        "fine",
        "coarse",
    )
    assert NormalizeParams._fields == ("numerator", "shift", "zero_point", "qmin", "qmax")
    assert CODE_SCALE == np.float32(1 / 255)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 1e9])
def test_scale_out_of_range(scale: float) -> None:
    """Through the dyadic number's own check."""
    with pytest.raises(RangeError, match="check the scales"):
        shiftmax_params(scale)
