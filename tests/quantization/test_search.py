"""Searched scales against exhaustive search, and quantizers against the papers' equations."""

import numpy as np
import pytest

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QScheme, QuantParams
from vitq.numerics.twin import Twin
from vitq.quantization.ranges.observers import activation_qparams
from vitq.quantization.ranges.search import (
    TwinParams,
    quantization_error,
    search_channels,
    search_range,
    search_twin,
    twin_error,
    twin_params,
)


def heavy(count: int = 4000, seed: int = 0) -> FloatArray:
    """Values with rare outliers."""
    random = np.random.RandomState(seed)
    values = random.standard_t(3, count).astype(np.float32)
    return np.clip(values, -30, 30)


def ptq4vit_twin(x: FloatArray, fine: float, coarse: float, bits: int) -> FloatArray:
    """PTQ4ViT, Eq. 5: negative values with one scale, positive ones with the other."""
    half = 2 ** (bits - 1)
    low = np.clip(np.rint(x / fine), -half, 0) * fine
    high = np.clip(np.rint(x / coarse), 0, half - 1) * coarse
    return np.where(x < 0, low, high)


@pytest.mark.parametrize("scheme", [QScheme.SYMMETRIC, QScheme.AFFINE])
@pytest.mark.parametrize("bits", [3, 4])
def test_a_searched_range_is_close_to_the_best_there_is(scheme: QScheme, bits: int) -> None:
    values = heavy() + (0 if scheme is QScheme.SYMMETRIC else 1)
    found = quantization_error(values, search_range(values, bits, scheme))
    low, high = float(values.min()), float(values.max())
    cuts = np.geomspace(0.05, 1, 60)
    pairs = (
        [(low * f, high * f) for f in cuts]
        if scheme is QScheme.SYMMETRIC
        else [(low * f, high * g) for f in cuts for g in cuts]
    )
    best = min(quantization_error(values, activation_qparams(*p, bits, scheme)) for p in pairs)
    whole = quantization_error(values, activation_qparams(low, high, bits, scheme))
    assert best <= found * 1.001
    assert found < 1.15 * best
    assert found < 0.5 * whole


def test_values_on_a_grid_are_found_exactly() -> None:
    values = (np.arange(-7, 8) * 0.25).astype(np.float32)
    found = search_range(values, 4, QScheme.SYMMETRIC)
    assert quantization_error(values, found) == 0
    assert float(found.scale) == 0.25


def test_channels_are_searched_independently() -> None:
    random = np.random.RandomState(0)
    rows = random.randn(5000, 4).astype(np.float32) * np.array([1, 5, 0.1, 1]) + [0, 3, 0, -9]
    rows[0, 3] = 3
    low, high = search_channels(rows, rows.min(0), rows.max(0), 4)
    assert (low >= rows.min(0) - 1e-6).all() and (high <= rows.max(0) + 1e-6).all()
    alone = [
        search_channels(rows[:, c : c + 1], rows.min(0)[c : c + 1], rows.max(0)[c : c + 1], 4)
        for c in range(4)
    ]
    np.testing.assert_allclose(low, [a[0] for a, _ in alone])
    assert high[3] < 0  # one outlier of 5000 is cut
    same = search_channels(rows, rows.min(0), rows.max(0), 8)
    np.testing.assert_array_equal(same, (rows.min(0), rows.max(0)))


@pytest.mark.parametrize("bits", [3, 4, 5, 6])
@pytest.mark.parametrize("shift", [1, 2])
def test_twin_parameters_are_the_papers(bits: int, shift: int) -> None:
    half, fine = 2 ** (bits - 1), 0.03
    found = twin_params(fine, half, half + 1, shift, bits)
    assert found is not None
    x = np.random.RandomState(0).randn(3000).astype(np.float64)
    expected = ptq4vit_twin(x, np.float32(fine), np.float32(fine) * 2**shift, bits)
    assert twin_error(x, found) == pytest.approx(np.square(expected - x).mean(), rel=1e-9)
    assert levels(found) == 2**bits


def levels(found: TwinParams) -> int:
    q, twin = found
    return twin.split - q.qmin + 1 + ((q.qmax - twin.split) >> twin.shift)


def test_codes_that_do_not_fit_eight_bits_are_left_out() -> None:
    assert twin_params(0.1, 8, 9, 5, 4) is not None
    assert twin_params(0.1, 8, 9, 6, 4) is None


def gelu_like() -> FloatArray:
    random = np.random.RandomState(0)
    x = np.abs(random.randn(6000)) * random.choice([0.3, 2.0], 6000, p=[0.9, 0.1])
    return np.where(random.rand(6000) < 0.5, -0.17 * random.rand(6000), x).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 6])
def test_a_searched_border_beats_the_border_at_zero_and_one_range(bits: int) -> None:
    values = gelu_like()
    one = quantization_error(values, search_range(values, bits, QScheme.AFFINE))
    twin = search_twin(values, bits, twin=True)
    split = search_twin(values, bits)
    assert levels(split) == levels(twin) == 2**bits
    assert twin.twin.split == int(twin.qparams.zero_point)
    assert twin_error(values, split) < twin_error(values, twin)
    assert twin_error(values, split) < 0.8 * one


def test_a_known_twin_error() -> None:
    found = TwinParams(QuantParams.per_tensor(1.0, 0, -2, 11), Twin(3, 2))
    values = np.array([-9.0, -1.4, 0.5, 3.4, 4.9, 5.1, 8.0, 30.0])
    # fine: -2 -1 0 3; above 3 in steps of 4: 3 (0.475 steps), 7, 7 (1.25 steps), 11
    quantized = np.array([-2, -1, 0, 3, 3, 7, 7, 11])
    assert twin_error(values, found) == pytest.approx(np.square(quantized - values).mean())
