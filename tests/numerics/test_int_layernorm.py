"""I-LayerNorm against Python integers and the float layer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics import int_layernorm as module
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import (
    MAX_CHANNELS,
    LayerNormParams,
    bit_length,
    fraction_bits,
    int_layernorm,
    isqrt_normalized,
    layernorm_params,
)
from vitq.numerics.qparams import QuantParams

CHANNELS = [1, 2, 3, 4, 5, 16, 17, 64, 192, 384, 768, 1024, 1025, 4096]
EPS = 1e-6
INT16_MAX = 2**15 - 1
INT32_MAX = 2**31 - 1


def test_constants_are_as_documented() -> None:
    assert (MAX_CHANNELS, module.RECIPROCAL_BITS, module.MULTIPLIER_BITS) == (4096, 61, 14)
    assert (module.SHIFT_LIMIT, module.ADDEND_LIMIT) == (30, 2**29)


def output(scale: float, zero_point: int = 0, bits: int = 8) -> QuantParams:
    """Signed parameters of one width."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return QuantParams.per_tensor(scale, zero_point, low, high)


def literal(row: list[int], p: LayerNormParams) -> tuple[list[int], list[int], int]:
    """(y, t, V) of one row with Python integers and math.isqrt."""
    channels, total = len(row), sum(row)
    variance = channels * sum(x * x for x in row) - total * total + p.eps_q
    k = (62 - variance.bit_length()) // 2
    root = math.isqrt(variance * 4**k)
    assert 2**30 <= root < 2**31
    reciprocal = (2**61 - 1) // root
    shift = 61 - k - p.fraction_bits
    t = [((channels * x - total) * reciprocal + 2 ** (shift - 1)) // 2**shift for x in row]
    sums = [v * int(m) + int(b) for v, m, b in zip(t, p.multiplier, p.addend, strict=True)]
    assert max(map(abs, sums)) <= INT32_MAX
    return [min(max(s >> p.shift, p.qmin), p.qmax) for s in sums], t, variance


def float_layer(x: FloatArray, eps: float, gamma: FloatArray, beta: FloatArray) -> FloatArray:
    """LayerNorm over the last axis in float64."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + float(np.float32(eps))) * gamma + beta


def affine(channels: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Gamma of both signs and beta."""
    rng = np.random.default_rng(seed)
    gamma = rng.normal(0.5, 1, channels).astype(np.float32)
    return gamma, rng.normal(0, 1, channels).astype(np.float32)


@settings(deadline=None)
@given(
    st.integers(1, 9).flatmap(lambda c: hnp.arrays(np.int16, (2, 3, c))),
    st.floats(2.0**-14, 1.0),
    st.floats(1e-12, 1e-2),
    st.floats(2.0**-8, 0.5),
    st.integers(-128, 127),
    st.integers(0, 99),
)
def test_python_integers(
    x: IntArray, scale: float, eps: float, out_scale: float, zero_point: int, seed: int
) -> None:
    """Small rows of any codes, any eps."""
    gamma, beta = affine(x.shape[-1], seed)
    p = layernorm_params(scale, eps, gamma, beta, output(out_scale, zero_point))
    result = int_layernorm(x, p)
    rows = x.reshape(-1, x.shape[-1]).tolist()
    expected = [literal(row, p)[0] for row in rows]
    assert result.tolist() == np.reshape(expected, x.shape).tolist()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("unsigned", [False, True])
def test_extreme_rows(channels: int, unsigned: bool) -> None:
    """One outlier, two halves, alternation: the normalized value stays in int16, V in 61 bits."""
    low, high = (0, 2**16 - 1) if unsigned else (-(2**15), 2**15 - 1)
    rows = np.full((6, channels), low)
    rows[0, 0] = high
    rows[1] = high
    rows[1, -1] = low
    rows[2, : channels // 2] = high
    rows[3, ::2] = high
    rows[4, 0] = low + 1
    gamma, beta = affine(channels)
    for scale in (1e-4, 1.0):
        p = layernorm_params(scale, EPS, gamma, beta, output(0.05))
        result = int_layernorm(rows, p)
        for row, got in zip(rows.tolist(), result.tolist(), strict=True):
            y, t, variance = literal(row, p)
            assert got == y
            assert max(map(abs, t)) <= INT16_MAX
            assert variance < 2**61


@pytest.mark.parametrize("channels", [2, 64, 192, 768, 4096])
@pytest.mark.parametrize("scale", [2e-4, 3e-3])
@pytest.mark.parametrize(("out_scale", "bits"), [(0.04, 8), (3e-4, 16)])
def test_error_against_float(channels: int, scale: float, out_scale: float, bits: int) -> None:
    """Half a step, half a unit of t, m and b, and eps_q's rounding, in steps of the output."""
    rng = np.random.default_rng(channels)
    x = np.clip(np.rint(rng.normal(0.3, 1, (50, channels)) / scale), -(2**15), 2**15 - 1)
    gamma, beta = affine(channels)
    out = output(out_scale, 3, bits)
    p = layernorm_params(scale, 1e-5, gamma, beta, out)
    real_scale = float(out.scale)
    exact = float_layer(x * scale, 1e-5, gamma, beta) / real_scale + 3
    t = float_layer(x * scale, 1e-5, np.ones(channels), np.zeros(channels))
    half_t = 0.5 * 2.0**-p.fraction_bits * np.abs(gamma) / real_scale
    half_m = 0.5 * 2.0 ** (p.fraction_bits - p.shift) * np.abs(t)
    eps_real = float(np.float32(1e-5)) * channels**2 / scale**2
    smallest = channels**2 * x.var(axis=-1, keepdims=True) + min(eps_real, p.eps_q)
    eps_part = np.abs(t * gamma) / real_scale * abs(p.eps_q - eps_real) / (2 * smallest)
    bound = 0.5 + half_t + half_m + 2.0 ** -(p.shift + 1) + eps_part + 1e-3
    error = np.abs(int_layernorm(x.astype(np.int64), p) - np.clip(exact, out.qmin, out.qmax))
    assert np.all(error <= bound)
    if bits == 8 and channels > 2:
        assert error.max() <= 0.75


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5, 1e-2, 1.0])
def test_eps_is_kept(eps: float) -> None:
    """A row whose variance is near eps shows it; eps_q is at least 1."""
    x = np.array([[-300, -100, 0, 400]])
    scale = 1e-5
    out = output(1e-3, bits=16)
    p = layernorm_params(scale, eps, np.ones(4), np.zeros(4), out)
    exact = float_layer(x * scale, eps, np.ones(4), np.zeros(4)) / float(out.scale)
    assert np.abs(int_layernorm(x, p) - exact).max() <= 0.75
    assert p.eps_q == max(round(float(np.float32(eps)) * 16 / scale**2), 1)


@pytest.mark.parametrize("channels", CHANNELS)
def test_constant_rows_yield_beta(channels: int) -> None:
    """No variance at all: no division by zero, at both ends of the range too."""
    gamma, beta = affine(channels)
    out = output(0.05, 2)
    p = layernorm_params(1e-3, EPS, gamma, beta, out)
    rows = np.repeat(np.array([[0], [1], [-(2**15)], [2**15 - 1]]), channels, axis=1)
    expected = np.floor(beta / float(out.scale) + 2 + 0.5)
    near_tie = np.abs(beta / float(out.scale) % 1 - 0.5) < 1e-3
    result = int_layernorm(rows, p)
    for row in result:
        np.testing.assert_array_equal(row[~near_tie], np.clip(expected, -128, 127)[~near_tie])
    assert np.all(result == result[0])


def test_dead_channels() -> None:
    """A gamma of zero needs no special case and yields its constant for every row."""
    gamma, beta = np.array([1.0, 0.0, -2.0, 0.0]), np.array([0.0, 0.26, 0.5, -3.0])
    p = layernorm_params(1e-3, EPS, gamma, beta, output(0.1, 1))
    x = np.random.default_rng(0).integers(-(2**15), 2**15, (100, 4))
    result = int_layernorm(x, p)
    assert set(result[:, 1].tolist()) == {4}
    assert set(result[:, 3].tolist()) == {-29}
    assert len(set(result[:, 2].tolist())) > 10


def test_negative_gamma_mirrors() -> None:
    """-gamma is the mirrored output, up to ties."""
    x = np.random.default_rng(0).integers(-3000, 3000, (50, 8))
    gamma = np.linspace(0.5, 2, 8)
    plus = int_layernorm(x, layernorm_params(1e-3, EPS, gamma, np.zeros(8), output(0.05)))
    minus = int_layernorm(x, layernorm_params(1e-3, EPS, -gamma, np.zeros(8), output(0.05)))
    assert np.abs(plus + minus).max() <= 1
    assert np.mean(plus != -minus) < 0.01


@settings(deadline=None)
@given(hnp.arrays(np.int64, (2, 8), elements=st.integers(-3000, 3000)), st.integers(-20000, 20000))
def test_offset_cancels(x: IntArray, offset: int) -> None:
    """Exactly: the zero point of the input is not needed."""
    gamma, beta = affine(8)
    p = layernorm_params(1e-3, EPS, gamma, beta, output(0.05))
    np.testing.assert_array_equal(int_layernorm(x, p), int_layernorm(x + offset, p))


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.int16, (3, 6)), st.integers(0, 5))
def test_channels_use_their_own_affine(x: IntArray, channel: int) -> None:
    """Another beta in one channel changes no other."""
    gamma, beta = affine(6)
    other = beta.copy()
    other[channel] += 0.5
    a = int_layernorm(x, layernorm_params(1e-3, EPS, gamma, beta, output(0.05)))
    b = int_layernorm(x, layernorm_params(1e-3, EPS, gamma, other, output(0.05)))
    keep = np.arange(6) != channel
    np.testing.assert_array_equal(a[:, keep], b[:, keep])
    assert np.all(b[:, channel] >= a[:, channel])


def test_isqrt_edges() -> None:
    """Perfect squares and their neighbours at both ends, and the largest radicand."""
    roots = [2**30, 2**30 + 1, 2**30 + 12345, 3 * 2**29, 2**31 - 2, 2**31 - 1]
    radicands = [r * r + d for r in roots for d in (-1, 0, 1, r, 2 * r, 2 * r + 1)]
    radicands = [n for n in radicands if 2**60 <= n < 2**62] + [2**62 - 1]
    result = isqrt_normalized(np.array(radicands))
    assert result.tolist() == [math.isqrt(n) for n in radicands]


@settings(deadline=None, max_examples=300)
@given(st.integers(2**60, 2**62 - 1), st.integers(2**30, 2**31 - 1), st.sampled_from([-1, 0, 1]))
def test_isqrt(radicand: int, root: int, offset: int) -> None:
    """Any radicand, and the neighbours of any square."""
    near = max(root * root + offset, 2**60)
    assert isqrt_normalized(np.array([radicand, near])).tolist() == [
        math.isqrt(radicand),
        math.isqrt(near),
    ]


def test_isqrt_of_many() -> None:
    """A million-fold sweep in one go, checked by squaring."""
    n = np.random.default_rng(0).integers(2**60, 2**62, 200_000)
    root = isqrt_normalized(n)
    assert np.all(root * root <= n)
    assert np.all((root + 1) * (root + 1) > n)


def test_bit_length() -> None:
    """Exact at every power of two and its neighbours."""
    values = [2**b + d for b in range(63) for d in (-1, 0, 1) if 2**b + d > 0]
    assert bit_length(np.array(values)).tolist() == [v.bit_length() for v in values]


@settings(deadline=None)
@given(st.integers(1, 2**63 - 1))
def test_bit_length_of_any(value: int) -> None:
    """Any positive int64."""
    assert int(bit_length(np.array(value))) == value.bit_length()


@pytest.mark.parametrize("channels", [*CHANNELS, *range(1, 70), MAX_CHANNELS - 1])
def test_fraction_bits(channels: int) -> None:
    """As many as fit: the bound sqrt(C - 1) in int16, and sqrt(C) needs all the whole bits."""
    bits = fraction_bits(channels)
    assert math.sqrt(channels - 1) * 2**bits + 0.5 < 2**15
    assert channels <= 4 ** (15 - bits)
    assert bits == 15 or channels > 4 ** (14 - bits)


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.floats(2.0**-14, 1.0),
    st.floats(2.0**-12, 1.0),
    st.floats(0.01, 50),
    st.integers(0, 99),
)
def test_params_in_range(
    channels: int, scale: float, out_scale: float, size: float, seed: int
) -> None:
    """Multipliers, addends and shift keep the int32 sum that the kernels rely on."""
    gamma, beta = affine(channels, seed)
    try:
        p = layernorm_params(scale, EPS, gamma * size, beta * size, output(out_scale, -128))
    except RangeError:
        assert size / out_scale > 1000
        return
    assert np.abs(p.multiplier).max() <= 2**14
    assert np.abs(p.addend.astype(np.int64)).max() <= 2**30
    assert 1 <= p.shift <= 30
    assert 1 <= p.eps_q < 2**60
    largest = 2**15 * np.abs(p.multiplier).astype(np.int64) + np.abs(p.addend.astype(np.int64))
    assert largest.max() <= INT32_MAX


def test_order_of_the_integers() -> None:
    """Kernels read the scalars by position."""
    p = layernorm_params(0.5, 1.0, np.ones(4), np.zeros(4), output(0.1, bits=4))
    assert p.scalars().dtype == np.int64
    assert p.scalars().tolist() == [64, 14, p.shift, -8, 7]
    assert (p.multiplier.dtype, p.addend.dtype) == (np.int32, np.int32)


def test_known_params() -> None:
    """Factors 2**-12 and -2**-13 of t in Q14, offsets 4.4 (rounded up) and -5, half a unit more."""
    out = QuantParams.per_tensor(0.25, 3, -128, 127)
    p = layernorm_params(0.5, EPS, np.array([1.0, -0.5]), np.array([0.35, -2.0]), out)
    assert (p.fraction_bits, p.shift, p.eps_q) == (14, 25, 1)
    assert p.multiplier.tolist() == [2**13, -(2**12)]
    assert p.addend.tolist() == [147639501 + 2**24, -5 * 2**25 + 2**24]


def test_limits_of_the_shift_and_of_eps() -> None:
    """A dead channel shifts as far as 2**29 allows; an offset of 2**28 leaves one bit."""
    out = QuantParams.per_tensor(1.0, 0, -128, 127)
    dead, one = np.array([2.0**-20]), np.ones(1)
    p = layernorm_params(1.0, 2.75, dead, np.zeros(1), out)
    assert (p.shift, p.addend.tolist(), p.eps_q) == (29, [2**28], 3)
    p = layernorm_params(1.0, EPS, one, np.array([2.0**28]), out)
    assert (p.shift, p.addend.tolist()) == (1, [2**29 + 1])
    with pytest.raises(RangeError, match="beta is too large for its output scale"):
        layernorm_params(1.0, EPS, one, np.array([2.0**29]), out)
    p = layernorm_params(2.0**-30, 1 - 2.0**-24, one, np.zeros(1), out)
    assert p.eps_q == 2**60 - 2**36
    with pytest.raises(RangeError, match=r"eps 1\.0 is too large for an input scale"):
        layernorm_params(2.0**-30, 1.0, one, np.zeros(1), out)


def test_too_many_channels() -> None:
    """4096 are proven."""
    assert layernorm_params(1.0, EPS, np.ones(4096), np.zeros(4096), output(0.1)).eps_q == 17
    with pytest.raises(RangeError, match="over 4097 channels: at most 4096 are proven"):
        layernorm_params(1.0, EPS, np.ones(4097), np.zeros(4097), output(0.1))


def test_eps_too_large() -> None:
    """An input scale so small that eps swamps 64 bits."""
    with pytest.raises(RangeError, match=r"eps 1e-05 is too large for an input scale of 1e-10"):
        layernorm_params(1e-10, 1e-5, np.ones(4096), np.zeros(4096), output(0.1))


def test_beta_too_large() -> None:
    """Beta in steps of the output must leave a shift."""
    with pytest.raises(RangeError, match="beta is too large for its output scale"):
        layernorm_params(1.0, EPS, np.ones(4), np.full(4, 1e9), output(0.1))
