"""RMS normalization against Python integers and the float layer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import LayerNormParams, fraction_bits
from vitq.numerics.int_rmsnorm import int_rmsnorm, rmsnorm_params
from vitq.numerics.qparams import QuantParams

OUT = QuantParams.per_tensor(0.02, -7, -128, 127)


def gammas(channels: int) -> np.ndarray:
    found = np.random.default_rng(channels).normal(1, 0.5, channels)
    found[0] = 0
    return found.astype(np.float32)


def literal(row: list[int], p: LayerNormParams) -> tuple[list[int], list[int]]:
    """(y, t) of one row with Python integers and math.isqrt."""
    channels = len(row)
    square = channels * sum(x * x for x in row) + p.eps_q
    k = (62 - square.bit_length()) // 2
    reciprocal = (2**61 - 1) // math.isqrt(square * 4**k)
    shift = 61 - k - p.fraction_bits
    t = [(channels * x * reciprocal + 2 ** (shift - 1)) // 2**shift for x in row]
    sums = [v * int(m) + int(b) for v, m, b in zip(t, p.multiplier, p.addend, strict=True)]
    return [min(max(s >> p.shift, p.qmin), p.qmax) for s in sums], t


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.int16, (3, 33)), st.floats(1e-4, 1.0))
def test_formula(x: IntArray, scale: float) -> None:
    p = rmsnorm_params(scale, 1e-6, gammas(33), OUT)
    assert int_rmsnorm(x, p).tolist() == [literal(row, p)[0] for row in x.tolist()]


@pytest.mark.parametrize("channels", [1, 4, 16, 17, 64, 256, 1024, 4096])
def test_a_lone_code_stays_in_16_bits(channels: int) -> None:
    """Where C is a power of 4 its root is a power of 2, and LayerNorm's F would be one too many."""
    p = rmsnorm_params(1e-4, 1e-6, np.ones(channels, np.float32), OUT)
    for code in (2**15 - 1, -(2**15)):
        t = literal([code] + [0] * (channels - 1), p)[1][0]
        assert -(2**15) <= t < 2**15 and abs(t) >= 2**12


@pytest.mark.parametrize(("channels", "bits"), [(3, 14), (4, 13), (15, 13), (16, 12), (4095, 9)])
def test_fraction_bits(channels: int, bits: int) -> None:
    """One less from a power of 4 on, no sooner."""
    assert rmsnorm_params(1e-4, 1e-6, np.ones(channels, np.float32), OUT).fraction_bits == bits


@pytest.mark.parametrize("channels", [32, 192, 768])
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_the_float_layer(channels: int, eps: float) -> None:
    rng = np.random.default_rng(0)
    x = np.rint(rng.normal(size=(20, channels)) * 10.0 ** rng.uniform(1, 4, (20, 1)))
    x, gamma, scale = x.clip(-(2**15), 2**15 - 1).astype(np.int16), gammas(channels), 1e-3
    real = x.astype(np.float64) * scale
    exact = real / np.sqrt((real**2).mean(-1, keepdims=True) + np.float32(eps)) * gamma
    found = int_rmsnorm(x, rmsnorm_params(scale, eps, gamma, OUT))
    wanted = np.clip(exact / float(OUT.scale) - 7, -128, 127)
    slack = 2.0 ** -(fraction_bits(channels) - 1) * np.abs(gamma).max() / float(OUT.scale)
    assert np.abs(found - wanted).max() <= 0.5 + slack


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.int8, (3, 32)))
def test_l2_normalization(x: IntArray) -> None:
    """Gamma 1 / sqrt(C): rows of length 1, but for the step of eps_q on a row of one 1."""
    out = QuantParams.per_tensor(1 / 127, 0, -127, 127)
    gamma = np.full(32, 32**-0.5, np.float32)
    found = int_rmsnorm(x, rmsnorm_params(0.05, 1e-24 / 32, gamma, out))
    length = np.sqrt((x.astype(np.float64) ** 2).sum(-1, keepdims=True))
    exact = 127.0 * x / np.maximum(length, 1e-12)
    slack = 127 / (64 * np.maximum(length, 1) ** 2) * np.abs(exact) / 127
    assert np.all(np.abs(found - exact) <= 0.52 + slack)
    assert not found[~x.any(axis=1)].any()


def test_too_many_channels() -> None:
    with pytest.raises(RangeError, match="over 4097 channels: at most 4096"):
        rmsnorm_params(0.1, 1e-6, np.ones(4097, np.float32), OUT)
