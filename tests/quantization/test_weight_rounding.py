"""Weight rounding against the textbook form of OBQ, and what each way guarantees."""

import numpy as np
import pytest
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import dequantize
from vitq.quantization.plan.methods import DAMPING, DAMPING_MADE, WeightRounding
from vitq.quantization.ranges import weight_rounding
from vitq.quantization.ranges.weight_rounding import CLIPS_NARROW, round_weight, weight_limits

ROWS, INPUTS = 5, 24


def problem(seed: int = 0) -> tuple[FloatArray, torch.Tensor]:
    """A weight and a second moment of correlated inputs."""
    random = np.random.RandomState(seed)
    weight = random.randn(ROWS, INPUTS).astype(np.float32)
    x = random.randn(300, INPUTS) @ random.randn(INPUTS, INPUTS)
    return weight, torch.from_numpy(x.T @ x / 300)


def output_error(weight: FloatArray, real: FloatArray, hessian: torch.Tensor) -> float:
    difference = real.astype(np.float64) - weight
    return float(np.trace(difference @ hessian.numpy() @ difference.T))


def textbook(row: FloatArray, scale: float, limits: tuple[int, int], h: FloatArray) -> FloatArray:
    """OBQ (arXiv:2208.11580): round, make up for it, take the weight out of the inverse."""
    order = np.argsort(-np.diag(h), kind="stable")
    w, inverse = row[order].astype(np.float64), np.linalg.inv(h[np.ix_(order, order)])
    codes = np.zeros(len(row))
    for i in range(len(row)):
        codes[i] = np.clip(np.rint(w[i] / scale), *limits)
        error = (w[i] - codes[i] * scale) / inverse[i, i]
        w = w - error * inverse[:, i]
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    result = np.zeros(len(row))
    result[order] = codes
    return result


@pytest.mark.parametrize(("bits", "damping"), [(3, DAMPING), (4, DAMPING_MADE), (8, DAMPING)])
def test_feedback_is_obq(bits: int, damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_rounding, "SWEEPS", 0)
    weight, hessian = problem()
    arguments = weight, bits, WeightRounding.FEEDBACK, hessian, np.zeros(ROWS)
    codes, qparams = round_weight(*arguments, damping=damping)
    damped = hessian.numpy() + damping * float(hessian.diagonal().mean()) * np.eye(INPUTS)
    for row, scale, found in zip(weight, qparams.scale, codes, strict=True):
        limits = weight_limits(bits)
        np.testing.assert_array_equal(found, textbook(row, float(scale), limits, damped))


@pytest.mark.parametrize("bits", [2, 4])
def test_descent_takes_the_best_code_of_each_weight_in_turn(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All codes of one weight tried, the error written out; blocks smaller than the columns."""
    monkeypatch.setattr(weight_rounding, "BLOCK", 10)
    weight = np.concatenate([problem(seed)[0] for seed in range(8)])
    _, hessian = problem()
    arguments = weight, bits, WeightRounding.FEEDBACK, hessian, np.zeros(len(weight))
    monkeypatch.setattr(weight_rounding, "SWEEPS", 0)
    codes, qparams = round_weight(*arguments)
    monkeypatch.setattr(weight_rounding, "SWEEPS", 2)
    found, same = round_weight(*arguments)
    np.testing.assert_array_equal(same.scale, qparams.scale)
    damped = hessian.numpy() + DAMPING * float(hessian.diagonal().mean()) * np.eye(INPUTS)
    low, high = weight_limits(bits)
    expected = codes.astype(np.float64)
    for _ in range(2):
        for k in range(INPUTS):
            for row, scale, own in zip(expected, qparams.scale, weight, strict=True):
                errors = []
                for row[k] in range(low, high + 1):
                    e = row * float(scale) - own
                    errors.append(e @ damped @ e)
                row[k] = low + int(np.argmin(errors))
    np.testing.assert_array_equal(found, expected)
    assert (found != codes).any()


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_each_way_is_better_than_the_one_before(bits: int) -> None:
    weight, hessian = problem(1)
    errors = {}
    for rounding in WeightRounding:
        found = round_weight(weight, bits, rounding, hessian, np.zeros(ROWS))
        errors[rounding] = output_error(weight, dequantize(*found), hessian)
    assert errors[WeightRounding.FEEDBACK] < 0.7 * errors[WeightRounding.NEAREST]
    assert errors[WeightRounding.FEEDBACK] < errors[WeightRounding.CLIPPED]


def test_clipping_is_by_the_squared_error_of_the_weights() -> None:
    weight, hessian = problem(2)
    weight[0, 0] = 6.0
    codes, qparams = round_weight(weight, 4, WeightRounding.CLIPPED, hessian, np.zeros(ROWS))
    real = dequantize(codes, qparams)
    assert codes.min() >= -8 and codes.max() <= 7
    for row, found in zip(weight, real, strict=True):
        for cut in (1.0, 0.775, 0.55):
            scale = np.abs(row).max() * cut / 7
            other = np.clip(np.rint(row / scale), -8, 7) * scale
            assert np.square(found - row).sum() <= np.square(other - row).sum() + 1e-6


@pytest.mark.parametrize("rounding", list(WeightRounding))
def test_scales_are_never_below_the_floor(rounding: WeightRounding) -> None:
    weight, hessian = problem(3)
    floor = np.array([0.0, 10.0, 0.0, 0.5, 0.0])
    _, qparams = round_weight(weight, 4, rounding, hessian, floor)
    assert (qparams.scale >= floor.astype(np.float32)).all()


@pytest.mark.parametrize("rounding", list(WeightRounding))
def test_settled_scales_are_kept(rounding: WeightRounding) -> None:
    weight, hessian = problem(4)
    scales = np.linspace(0.2, 0.6, ROWS).astype(np.float32)
    codes, qparams = round_weight(weight, 4, rounding, hessian, np.zeros(ROWS), scales)
    np.testing.assert_array_equal(qparams.scale, scales)
    if rounding is not WeightRounding.FEEDBACK:
        expected = np.clip(np.rint(weight.astype(np.float64) / scales[:, None]), -8, 7)
        np.testing.assert_array_equal(codes, expected)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, _ = problem(5)
    weight[1] = 0
    zero = torch.zeros(INPUTS, INPUTS, dtype=torch.float64)
    codes, qparams = round_weight(weight, 4, WeightRounding.FEEDBACK, zero, np.zeros(ROWS))
    assert np.isfinite(qparams.scale).all()
    assert not codes[1].any()


def test_8_bit_weights_leave_out_the_lowest_code() -> None:
    assert weight_limits(8) == (-127, 127)
    assert weight_limits(4) == (-8, 7)


@pytest.mark.parametrize("rounding", list(WeightRounding))
def test_parts_of_the_channels_give_what_all_together_give(
    rounding: WeightRounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.concatenate([problem(seed)[0] for seed in range(8)])
    arguments = weight, 4, rounding, problem()[1], np.zeros(len(weight))
    codes, qparams = round_weight(*arguments)
    monkeypatch.setattr(weight_rounding, "PART", 3 * INPUTS * len(CLIPS_NARROW))
    found, same = round_weight(*arguments)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_array_equal(same.scale, qparams.scale)
