"""Ranges by the three rules, and the parameters derived from them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import PerAxis, QScheme, dequantize, quantize
from vitq.quantization.plan.methods import RangeRule
from vitq.quantization.ranges import observers
from vitq.quantization.ranges.observers import Observer, activation_qparams, weight_qparams


def observed(values: FloatArray, channels: bool = False, parts: int = 1) -> Observer:
    """An observer that has seen `values`, in `parts` batches."""
    observer = Observer("node", channels)
    for part in np.array_split(values, parts):
        observer.update(torch.from_numpy(part), parts)
    return observer


def normal(*shape: int, seed: int = 0) -> FloatArray:
    """Standard normal values."""
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


@pytest.mark.parametrize("channels", [False, True])
def test_minmax_is_the_extremes_over_all_batches(channels: bool) -> None:
    values = normal(12, 5, 8)
    observer = observed(values, channels, parts=4)
    found = observer.range_of(RangeRule.MINMAX, 8, QScheme.AFFINE)
    assert found == (float(values.min()), float(values.max()))
    assert observer.reach == float(np.abs(values).max())


def test_percentile_equals_numpy() -> None:
    values = normal(50, 7, 31)
    low, high = observed(values, parts=5).range_of(RangeRule.PERCENTILE, 8, QScheme.AFFINE)
    expected = np.percentile(values, [0.01, 99.99])
    np.testing.assert_allclose([low, high], expected, rtol=1e-6)
    assert high < values.max()


def test_percentile_of_a_sample_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "SAMPLE_LIMIT", 1 << 14)
    values = np.random.RandomState(1).uniform(-1, 3, (64, 10, 200)).astype(np.float32)
    observer = observed(values, parts=8)
    assert 1 << 13 < observer.samples.size < 1 << 15
    low, high = observer.range_of(RangeRule.PERCENTILE, 8, QScheme.AFFINE)
    np.testing.assert_allclose([low, high], [-1, 3], atol=0.01)


def test_samples_visit_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "SAMPLE_LIMIT", 4096)
    monkeypatch.setattr(observers, "MSE_SAMPLES", 1024)
    channels = 96
    values = np.broadcast_to(np.arange(channels, dtype=np.float32), (8, 32, channels))
    observer = observed(np.array(values), parts=4)
    assert observer.samples.size < values.size / 2
    assert set(observer.samples) == set(range(channels))
    step = observers._stride(observer.samples.size, 1024, channels)
    assert step > 1 and set(observer.samples[::step]) == set(range(channels))


def test_one_wide_channel_is_seen_by_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    # every other value belongs to an even channel: a stride of 2 would miss the wide one
    monkeypatch.setattr(observers, "SAMPLE_LIMIT", 1 << 12)
    values = 0.01 * normal(16, 32, 16)
    values[..., 1] = 10 * normal(16, 32, seed=1)
    low, high = observed(values).range_of(RangeRule.MSE, 8, QScheme.SYMMETRIC)
    assert max(-low, high) > 20


def test_mse_cuts_an_outlier_and_never_loses_to_minmax() -> None:
    values = normal(1, 4096)
    values[0, 0] = 40.0
    observer = observed(values)
    errors = {}
    for rule in RangeRule:
        qparams = activation_qparams(*observer.range_of(rule, 4, QScheme.AFFINE), 4, QScheme.AFFINE)
        errors[rule] = np.square(dequantize(quantize(values, qparams), qparams) - values).mean()
    assert errors[RangeRule.MSE] < 0.6 * errors[RangeRule.MINMAX]
    assert observer.range_of(RangeRule.MSE, 4, QScheme.AFFINE)[1] < 40


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 8), st.sampled_from(list(QScheme)))
def test_mse_is_at_most_that_of_minmax(seed: int, bits: int, scheme: QScheme) -> None:
    values = (normal(500, seed=seed) ** 3).astype(np.float32)
    observer = observed(values)
    errors = [
        np.square(dequantize(quantize(values, q), q) - values).mean()
        for q in (
            activation_qparams(*observer.range_of(rule, bits, scheme), bits, scheme)
            for rule in (RangeRule.MSE, RangeRule.MINMAX)
        )
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = normal(4, 8)
    values[2, 3] = bad
    with pytest.raises(VitqError, match="activations of block7 are not finite"):
        Observer("block7", channels=True).update(torch.from_numpy(values), 1)


def test_channel_range_of_many_rows_is_the_extremes() -> None:
    values = normal(2048, 6) * np.arange(1, 7, dtype=np.float32)
    low, high = observed(values, channels=True, parts=3).channel_range()
    np.testing.assert_array_equal(low, values.min(axis=0))
    np.testing.assert_array_equal(high, values.max(axis=0))


def test_channel_range_of_few_rows_is_widened() -> None:
    values = normal(32, 6) + 2
    low, high = observed(values, channels=True).channel_range()
    mean, std = values.mean(axis=0), values.std(axis=0)
    np.testing.assert_allclose(low, np.minimum(values.min(axis=0), mean - 4 * std), rtol=1e-5)
    np.testing.assert_allclose(high, np.maximum(values.max(axis=0), mean + 4 * std), rtol=1e-5)
    assert np.all(high > values.max(axis=0))


@pytest.mark.parametrize("scheme", list(QScheme))
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 3.0), (-4.0, -1.0), (-1e-20, 0.0)])
def test_a_range_and_zero_are_represented(
    low: float, high: float, bits: int, scheme: QScheme
) -> None:
    qparams = activation_qparams(low, high, bits, scheme)
    ends = np.array([low, high, 0.0], np.float32)
    real = dequantize(quantize(ends, qparams), qparams)
    assert np.all(np.abs(real - ends) <= 1.001 * float(qparams.scale))
    assert real[2] == 0.0
    assert (qparams.qmin, qparams.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if scheme is QScheme.SYMMETRIC:
        assert int(qparams.zero_point) == 0


def test_affine_uses_all_codes() -> None:
    qparams = activation_qparams(0.0, 25.5, 8, QScheme.AFFINE)
    assert float(qparams.scale) == pytest.approx(0.1)
    assert int(qparams.zero_point) == -128


@pytest.mark.parametrize("scheme", list(QScheme))
def test_a_range_of_zero_width_has_scale_one_and_is_exact(scheme: QScheme) -> None:
    qparams = activation_qparams(0.0, 0.0, 8, scheme)
    assert (float(qparams.scale), int(qparams.zero_point)) == (1.0, 0)
    zeros = np.zeros(3, np.float32)
    np.testing.assert_array_equal(dequantize(quantize(zeros, qparams), qparams), 0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_qparams_are_symmetric_for_each_channel(bits: int) -> None:
    weight = normal(5, 3, 2, 2)
    qparams = weight_qparams(weight, bits)
    limit = 2 ** (bits - 1) - 1
    assert qparams.granularity == PerAxis(0) and not qparams.zero_point.any()
    assert (qparams.qmin, qparams.qmax) == (-limit, limit)
    codes = quantize(weight, qparams)
    np.testing.assert_array_equal(np.abs(codes).reshape(5, -1).max(axis=1), limit)


def test_weight_channel_of_zeros() -> None:
    weight = normal(3, 4)
    weight[1] = 0
    qparams = weight_qparams(weight, 8)
    assert qparams.scale[1] == 1 and not quantize(weight, qparams)[1].any()
    floored = weight_qparams(weight, 8, floor=np.array([0.0, 0.25, 10.0]))
    np.testing.assert_allclose(floored.scale[1:], [0.25, 10.0])
    assert floored.scale[0] == qparams.scale[0]
