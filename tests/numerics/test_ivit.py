"""I-ViT's published forms: known answers, a literal copy in Python integers, error and mass."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.numerics.ivit_literal import (
    literal_div,
    literal_exp,
    literal_row,
    literal_shiftmax,
    literal_sigmoid,
)
from vitq.numerics import ivit as module
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.ivit import (
    CODE_MAX,
    CODE_SCALE,
    ERROR_SCALE,
    GELU_OCTAVES,
    GELU_RANGE,
    SHIFTGELU_MAX_ERROR,
    SHIFTMAX_MAX_ERROR,
    SOFTMAX_OCTAVES,
    UNIT_LIMIT,
    IvitGeluParams,
    IvitSoftmaxParams,
    int_div,
    ivit_gelu_params,
    ivit_shiftgelu,
    ivit_shiftmax,
    ivit_softmax_params,
    shift_exp,
)
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    SMALLEST_CODE_SUM,
    SMALLEST_WIDE_SUM,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax,
    shiftmax_codes,
)

TOKENS = 197
# The last three put 1 / S halfway between two integers, where I0 is worst.
FINE_SCALES = [0.001, 0.005, 0.01, 0.02, ERROR_SCALE, 1 / 20.51, 1 / 30.49, 1 / 50.51]


def output(scale: float, zero_point: int = 0, bits: int = 8) -> QuantParams:
    """Signed parameters of one width."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return QuantParams.per_tensor(scale, zero_point, low, high)


def softmax(x: FloatArray) -> FloatArray:
    """Float softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gelu(x: FloatArray) -> FloatArray:
    """The exact GELU."""
    return np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()])


def raw_gelu(x: IntArray, scale: float) -> FloatArray:
    """Real values before the output's rounding: requantized to steps of scale / 128, 32 bits."""
    p = ivit_gelu_params(scale, 0, output(1.0))._replace(
        multiplier=2**30, shift=30, qmin=-(2**31), qmax=2**31
    )
    return ivit_shiftgelu(x, p) * scale / CODE_MAX


def test_constants_are_as_documented() -> None:
    assert (SOFTMAX_OCTAVES, GELU_OCTAVES, UNIT_LIMIT) == (15, 23, 2**20)
    assert (module.RECIPROCAL_BITS, module.CODE_BITS, module.CODE_MAX) == (62, 7, 128)
    assert module.CODE_SCALE == np.float32(1 / 128)
    assert (ERROR_SCALE, module.GELU_RANGE) == (0.05, 6.0)
    assert (module.SHIFTMAX_MAX_ERROR, module.SHIFTGELU_MAX_ERROR) == (0.07, 0.04)


def test_known_exponentials() -> None:
    """By hand, at I0 = 10 and N = 15.

    x = -7: Ip = -7 - 4 + 1 = -10, q = 1, r = 0, (0 + 10) << 14.
    x = -10: Ip = -10 - 5 + 1 = -14, q = 1, r = -4, (-2 + 10) << 14.
    x = -3: Ip = -3 - 2 + 1 = -4, q = 0, r = -4, 8 << 15.
    x = -1: Ip = -1 - 1 + 1 = -1, q = 0, r = -1, (-1 + 10) << 15.
    x = -1000: held at -150, q = 15, r = 0.
    """
    x = np.array([0, -1, -3, -7, -10, -1000])
    expected = [10 << 15, 9 << 15, 8 << 15, 10 << 14, 8 << 14, 10]
    assert shift_exp(x, 10, 15).tolist() == expected


def test_known_shiftmax() -> None:
    """By hand, at S = 0.1: e / 2**14 = 20, 16, 8 of 44, times 128: 58.2, 46.5, 23.3."""
    p = ivit_softmax_params(0.1)
    assert p == IvitSoftmaxParams(10)
    assert ivit_shiftmax(np.array([5, 2, -5]), p).tolist() == [58, 46, 23]


def test_known_shiftgelu() -> None:
    """By hand, at S = 0.1: p = 10 + 5 + 1 + 0 = 16 and -10 - 5 - 2 - 1 = -18 for +-1.

    e(0) = 10 << 23; e(-16): Ip = -16 - 8 + 1 = -23, q = 2, r = -3, 8 << 21;
    e(-34): Ip = -34 - 17 + 3 = -48, q = 4, r = -8, 6 << 19.
    sigmoid(+1) = 40 / 48 = 106 / 128; sigmoid(-1) = 1.5 / 9.5 = 20 / 128; sigmoid(0) = 64 / 128.
    """
    p = ivit_gelu_params(0.1, 3, output(0.1 / 128, -4, bits=16))
    assert ivit_shiftgelu(np.array([13, -7, 3]), p).tolist() == [1060 - 4, -200 - 4, -4]


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**31) + 1, 0), min_size=1, max_size=8),
    st.integers(1, UNIT_LIMIT),
    st.sampled_from([SOFTMAX_OCTAVES, GELU_OCTAVES]),
)
def test_shift_exp_is_literal(x: list[int], i0: int, octaves: int) -> None:
    """And in its range."""
    result = shift_exp(np.array(x), i0, octaves)
    assert result.tolist() == [literal_exp(v, i0, octaves) for v in x]
    assert i0 <= result.min()
    assert result.max() <= i0 << octaves


@settings(deadline=None)
@given(st.integers(0, 2**52), st.integers(1, 2**52))
def test_int_div_is_literal(a: int, b: int) -> None:
    """At most one step under a / b, which it never exceeds."""
    a, b = min(a, b), max(a, b)
    code = int(int_div(np.array(a), np.array(b)))
    assert code == literal_div(a, b)
    assert 0 <= Fraction(128 * a, b) - code <= 1 + Fraction(1, 8)
    assert 2**62 // b * a < 2**63


def test_int_div_uses_62_bits() -> None:
    """29.0 as it comes out; with 61 bits of reciprocal it would be 28, and 3 / 3 is 127 in any."""
    assert int_div(np.array([1123855163, 3, 4]), np.array([4960464164, 3, 4])).tolist() == [
        29,
        127,
        128,
    ]


@settings(deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=7)),
    st.floats(2.0**-20, 1.99),
)
def test_shiftmax_is_literal(x: IntArray, scale: float) -> None:
    """Any shape of 16-bit scores."""
    p = ivit_softmax_params(scale)
    result = ivit_shiftmax(x, p)
    rows = x.reshape(-1, x.shape[-1]).tolist()
    expected = [literal_shiftmax(row, round(1 / Fraction(scale))) for row in rows]
    assert result.tolist() == np.reshape(expected, x.shape).tolist()
    assert 0 <= result.min()
    assert result.max() <= CODE_MAX


@pytest.mark.parametrize("i0", [1, 3, 10, 50])
@pytest.mark.parametrize("largest", [-9, -1, 0, 1, 70])
def test_sigmoid_is_literal_for_small_codes(i0: int, largest: int) -> None:
    """Rows on both sides of 0, where every step of the reference point shows."""
    row = list(range(largest - 60, largest + 1))
    p = IvitGeluParams(0, i0, 2**30, 30, 0, -(2**31), 2**31)
    expected = [x * s for x, s in zip(row, literal_sigmoid(row, i0), strict=True)]
    assert ivit_shiftgelu(np.array(row), p).tolist() == expected


@settings(deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=7)),
    st.floats(2.0**-20, 1.99),
    st.integers(-(2**15), 2**15 - 1),
    st.floats(2.0**-10, 0.5),
    st.integers(-128, 127),
)
def test_shiftgelu_is_literal(
    x: IntArray, scale: float, x_zero: int, out_scale: float, zero: int
) -> None:
    """Any shape, any zero points, requantized with one HALF_UP rounding."""
    p = ivit_gelu_params(scale, x_zero, output(out_scale, zero))
    expected = []
    for row in x.reshape(-1, x.shape[-1]).tolist():
        centred = [v - x_zero for v in row]
        for value, sigmoid in zip(centred, literal_sigmoid(centred, p.i0), strict=True):
            factor = Fraction(p.multiplier, 2**p.shift)
            code = math.floor(value * sigmoid * factor + Fraction(1, 2)) + zero
            expected.append(min(max(code, -128), 127))
    assert ivit_shiftgelu(x, p).tolist() == np.reshape(expected, x.shape).tolist()


@pytest.mark.parametrize("scale", FINE_SCALES)
def test_shiftmax_error(scale: float) -> None:
    """Within the documented bound: one and a few large scores against many small ones."""
    distances = np.unique(np.linspace(0, 12 / scale, 300).astype(np.int64))[:, None]
    p = ivit_softmax_params(scale)
    for large in (1, 2, 3):
        for small in (1, 2, 5, 30, TOKENS - large):
            row = [np.zeros((len(distances), large), np.int64), np.repeat(-distances, small, 1)]
            x = np.concatenate(row, axis=1)
            error = np.abs(ivit_shiftmax(x, p) * float(CODE_SCALE) - softmax(x * scale))
            assert error.max() <= SHIFTMAX_MAX_ERROR


@pytest.mark.parametrize("scale", FINE_SCALES)
@pytest.mark.parametrize("largest", [-3.0, 0.0, 1.0, 2.5, 4.0, GELU_RANGE])
def test_shiftgelu_error(scale: float, largest: float) -> None:
    """Within the documented bound, for rows that end at any maximum up to GELU_RANGE."""
    x = np.arange(math.ceil(-10 / scale), math.floor(largest / scale) + 1)
    error = np.abs(raw_gelu(x, scale) - gelu(x * scale))
    assert np.all(error <= SHIFTGELU_MAX_ERROR + np.abs(x * scale) / 128)


def test_shiftgelu_fails_for_large_maxima() -> None:
    """The method's own defect: the row's maximum decides what negative values become."""
    scale = 0.01
    for largest, share in ((GELU_RANGE, 0), (8.0, 1 / 13), (10.0, 1 / 2)):
        x = np.array([-800, round(largest / scale)])
        assert raw_gelu(x, scale)[0] == pytest.approx(-8 * share, abs=8 / 128)


def test_negative_rows() -> None:
    """Rows without a positive value are as exact as others (the published code overflows)."""
    x = -np.arange(100, 2000, 7)
    assert np.abs(raw_gelu(x, 0.01) - gelu(x * 0.01)).max() <= SHIFTGELU_MAX_ERROR


@pytest.mark.parametrize("scale", [0.1, 0.05, 0.03, 0.02])
def test_mass_at_197_tokens(scale: float) -> None:
    """The 8-bit floor loses nearly half of the probability; this project's forms keep it."""
    rng = np.random.default_rng(0)
    x = np.clip(np.rint(rng.normal(0, 1.5, (200, TOKENS)) / scale), -128, 127).astype(np.int8)
    published = ivit_shiftmax(x, ivit_softmax_params(scale)).sum(axis=-1) / CODE_MAX
    assert 0.5 < published.mean() < 0.6

    p = code_params(scale)
    codes8 = QuantParams.per_tensor(1 / 255, 0, 0, 255)
    rounded = shiftmax(x, p, normalize_params(255.0, SMALLEST_WIDE_SUM, codes8)).sum(axis=-1) / 255
    assert rounded.mean() > 0.94
    codes16 = QuantParams.per_tensor(1 / 32767, 0, 0, 32767)
    wide = (
        shiftmax(x, p, normalize_params(32767.0, SMALLEST_WIDE_SUM, codes16)).sum(axis=-1) / 32767
    )
    assert np.abs(wide - 1).max() < 2e-3
    norm = normalize_params(1.0, SMALLEST_CODE_SUM, output(1.0))
    value = np.full((TOKENS, 1), 127)
    deferred = normalized_matmul(shiftmax_codes(x, p), value, 0, norm)
    assert np.all(deferred == 127)


def test_uniform_rows_lose_everything() -> None:
    """128 / 197 is under one step; 128 / 64 is two only where the reciprocal is exact."""
    p = ivit_softmax_params(0.05)
    assert ivit_shiftmax(np.zeros(TOKENS, np.int8), p).sum() == 0
    assert ivit_shiftmax(np.zeros(64, np.int8), p).sum() == 64
    assert ivit_shiftmax(np.zeros(64, np.int8), ivit_softmax_params(1 / 16)).sum() == 128


@pytest.mark.parametrize("i0", [1, 127, UNIT_LIMIT])
def test_ranges(i0: int) -> None:
    """The docstring's bounds at the extremes, with Python integers."""
    assert i0 << SOFTMAX_OCTAVES <= 2**35
    assert (i0 << SOFTMAX_OCTAVES) * 2**16 <= 2**51 < 2**62
    assert 2 * (i0 << GELU_OCTAVES) <= 2**44
    if i0 < 128:
        assert 2 * (i0 << GELU_OCTAVES) < 2**31
    row = np.zeros((1, 2**16), np.int16)
    row[0, 0] = 2**15 - 1
    codes = ivit_shiftmax(row, IvitSoftmaxParams(i0))
    assert codes[0, :2].tolist() == literal_row(row[0], i0)
    for code in (-65535, 65535):
        power = code + code // 2 + code // 8 + code // 16
        distance = power - max(power, 0) - max(0, -power)
        assert abs(distance + distance // 2 - distance // 16) < 2**19
        assert abs(code * CODE_MAX) <= 2**23


def test_int32_limit_of_the_published_sum() -> None:
    """At 197 tokens I0 = 332 is the last that an int32 sum holds: S > 0.0030."""
    largest = (2**16 - 1) // TOKENS
    assert largest == 332
    assert TOKENS * (largest << SOFTMAX_OCTAVES) < 2**31 <= TOKENS * (333 << SOFTMAX_OCTAVES)
    assert 1 / 0.0031 < largest < 1 / 0.0030


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    assert IvitSoftmaxParams._fields == ("i0",)
    assert IvitGeluParams._fields == (
        "x_zero_point",
        "i0",
        "multiplier",
        "shift",
        "zero_point",
        "qmin",
        "qmax",
    )
    p = ivit_gelu_params(0.25, 9, QuantParams.per_tensor(0.5, 3, -50, 50))
    assert tuple(p) == (9, 4, 2**30, 38, 3, -50, 50)


@pytest.mark.parametrize("scale", [0.0, -0.1, math.nan, math.inf])
def test_scale_is_no_scale(scale: float) -> None:
    """Both builders refuse it."""
    with pytest.raises(RangeError, match="not a positive finite number"):
        ivit_softmax_params(scale)
    with pytest.raises(RangeError, match="not a positive finite number"):
        ivit_gelu_params(scale, 0, output(1.0))


@pytest.mark.parametrize("scale", [2.0, 100.0, 2.0**-21])
def test_scale_out_of_range(scale: float) -> None:
    """I0 would be 0, or the sums beyond their proof; the message names the way out."""
    with pytest.raises(RangeError, match="must be between 1e-06 and 2; choose nonlinear = vitq"):
        ivit_softmax_params(scale)
    with pytest.raises(RangeError, match="must be between 1e-06 and 2; choose nonlinear = vitq"):
        ivit_gelu_params(scale, 0, output(1.0))


@pytest.mark.parametrize(("scale", "i0"), [(1.99, 1), (0.4, 2), (0.28, 4), (2.0**-20, 2**20)])
def test_unit_is_rounded(scale: float, i0: int) -> None:
    """HALF_EVEN, the host's rule; the ends of the range are included."""
    assert ivit_softmax_params(scale).i0 == i0
