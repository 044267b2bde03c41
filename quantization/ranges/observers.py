"""Observers: what they keep of a tensor during calibration, and the parameters they derive.

A method (`quantization.plan.methods`) chooses how a range is cut: by the extremes, by a percentile,
or by the smallest squared error. The observer keeps enough for any of them.
"""

import math

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import PerAxis, QScheme, QuantParams, bounds
from vitq.quantization.plan.methods import RangeRule

SAMPLE_LIMIT = 1 << 20
ROW_LIMIT = 1 << 13
PERCENTILE = 0.9999
MSE_CANDIDATES = (1.0, 0.99999, 0.9999, 0.999)
MSE_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
MSE_SAMPLES = 1 << 16
FEW_ROWS = 1024
FEW_ROWS_SIGMA = 4.0
"""DeiT-Tiny, 32 pictures, cosine of the logits: 0.985 without, 0.9942 / 0.9946 / 0.9945 at 3 / 4 /
5."""


class Observer:
    """Running extremes of a tensor, and an even sample of its values.

    Args:
        name: of the node, for messages.
        channels: also keep extremes and rows for each index of the last axis.
        sampling: keep a sample; otherwise extremes only.
    """

    def __init__(self, name: str, channels: bool, sampling: bool = True) -> None:
        self.name = name
        self.sampling = sampling
        self.channels = channels
        self.low = np.inf
        self.high = -np.inf
        self.channel_low: FloatArray | None = None
        self.channel_high: FloatArray | None = None
        self._samples: list[FloatArray] = []
        self._period = 1

    def update(self, x: torch.Tensor, batches: int) -> None:
        """Take in one batch.

        Args:
            x: the node's float result, any shape.
            batches: how many batches will come, so that samples are spread evenly.

        Raises:
            VitqError: if a value is not finite.
        """
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise VitqError(
                f"the activations of {self.name} are not finite (NaN or Inf): "
                "check the weights and the calibration pictures"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.sampling:
            return
        if self.channels:
            rows = x.reshape(-1, x.shape[-1])
            self._period = x.shape[-1]
            self._update_channels(rows)
            step = max(1, rows.shape[0] * batches // ROW_LIMIT)
            self._samples.append(rows[::step].numpy().copy())
            return
        flat = x.reshape(-1)
        self._period = x.shape[-1] if x.ndim else 1
        step = _stride(flat.shape[0] * batches, SAMPLE_LIMIT, self._period)
        self._samples.append(flat[::step].numpy().copy())

    def _update_channels(self, rows: torch.Tensor) -> None:
        low, high = (v.numpy().copy() for v in (rows.amin(0), rows.amax(0)))
        if self.channel_low is not None and self.channel_high is not None:
            low = np.minimum(low, self.channel_low)
            high = np.maximum(high, self.channel_high)
        self.channel_low, self.channel_high = low, high

    @property
    def reach(self) -> float:
        """Largest magnitude."""
        return max(-self.low, self.high)

    def channel_range(self) -> tuple[FloatArray, FloatArray]:
        """Extremes of each channel, (C,) and (C,).

        Of few rows: wider, see `widen_few`.
        """
        assert self.channel_low is not None and self.channel_high is not None
        return widen_few(self.samples, self.channel_low, self.channel_high)

    @property
    def samples(self) -> FloatArray:
        """Kept values: (S,) or, for channels, (rows, C)."""
        return np.concatenate(self._samples)

    def range_of(self, rule: RangeRule, bits: int, scheme: QScheme) -> tuple[float, float]:
        """Return the range to represent, cut by a rule."""
        if rule is RangeRule.MINMAX:
            return self.low, self.high
        values = self.samples.reshape(-1)
        if rule is RangeRule.PERCENTILE:
            return _quantile_range(values, PERCENTILE)
        values = values[:: _stride(values.size, MSE_SAMPLES, self._period)]
        return _mse_range(values, self.low, self.high, bits, scheme)


def widen_few(rows: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Widen the extremes of channels that were seen in few rows.

    Where only the class token is read, 32 pictures are 32 rows: their extremes say little of
    what other pictures bring, and every value beyond is clipped. Few rows are therefore widened
    to at least mean +- `FEW_ROWS_SIGMA` standard deviations.

    Args:
        rows: (R, C) values.
        low: (C,) smallest.
        high: (C,) largest.

    Returns:
        Lower and upper ends.
    """
    if rows.shape[0] >= FEW_ROWS:
        return low, high
    mean, reach = rows.mean(axis=0), FEW_ROWS_SIGMA * rows.std(axis=0)
    return np.minimum(low, mean - reach), np.maximum(high, mean + reach)


def channel_extent(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Extremes of each column of (R, C) rows, of few rows wider (`widen_few`)."""
    return widen_few(rows, rows.min(axis=0), rows.max(axis=0))


def _stride(size: int, limit: int, period: int) -> int:
    """Choose a step that leaves about `limit` of `size` values and visits every channel.

    A step that shares a factor with the number of channels would see only some of them.
    """
    step = max(1, size // limit)
    while math.gcd(step, period) != 1:
        step += 1
    return step


def _quantile_range(values: FloatArray, quantile: float) -> tuple[float, float]:
    low, high = np.quantile(values, [1 - quantile, quantile])
    return float(low), float(high)


def _mse_range(
    values: FloatArray, low: float, high: float, bits: int, scheme: QScheme
) -> tuple[float, float]:
    """Return the candidate range with the smallest squared quantization error.

    RepQ-ViT's search (arXiv:2212.08254, Sec. 4.1, "percentiles") extended by uniform shrinking.
    """
    ranges = [(low, high), *(_quantile_range(values, q) for q in MSE_CANDIDATES[1:])]
    ranges += [(low * f, high * f) for f in MSE_SHRINK[1:]]
    errors = []
    for candidate in ranges:
        qparams = activation_qparams(*candidate, bits, scheme)
        scale, zero = float(qparams.scale), int(qparams.zero_point)
        codes = np.clip(np.rint(values / scale) + zero, qparams.qmin, qparams.qmax)
        errors.append(float(np.square((codes - zero) * scale - values).mean()))
    return ranges[int(np.argmin(errors))]


def activation_qparams(low: float, high: float, bits: int, scheme: QScheme) -> QuantParams:
    """Per-tensor parameters that represent [low, high] and 0, signed codes.

    Args:
        low: smallest value to represent.
        high: largest.
        bits: 2 to 16.
        scheme: SYMMETRIC centres the codes on 0; AFFINE uses all of them.

    Returns:
        The parameters; a range of zero width gets scale 1 (its only value, 0, is exact).
    """
    qmin, qmax = bounds(bits, signed=True)
    low, high = min(low, 0.0), max(high, 0.0)
    if scheme is QScheme.SYMMETRIC:
        scale = np.float32(max(-low, high) / qmax)
        zero_point = 0
    else:
        scale = np.float32((high - low) / (qmax - qmin))
        zero_point = 0
        if scale > 0:
            zero_point = int(np.clip(np.rint(qmin - low / float(scale)), qmin, qmax))
    if not scale > 0:
        return QuantParams.per_tensor(1, 0, qmin, qmax)
    return QuantParams.per_tensor(float(scale), zero_point, qmin, qmax)


def weight_qparams(weight: FloatArray, bits: int, floor: FloatArray | None = None) -> QuantParams:
    """Symmetric parameters of a weight, one scale for each output channel (axis 0).

    Args:
        weight: (O, ...) float32.
        bits: 2 to 8; the codes are -(2**(bits-1) - 1) to 2**(bits-1) - 1.
        floor: (O,) smallest allowed scales, or None.

    Returns:
        Parameters along axis 0; an all-zero channel gets the floor or scale 1.
    """
    qmin, qmax = bounds(bits, signed=True, narrow=True)
    largest = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1).astype(np.float64)
    scale = largest / qmax
    if floor is not None:
        scale = np.maximum(scale, floor)
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    zeros = np.zeros(scale.shape, np.int32)
    return QuantParams(scale, zeros, qmin, qmax, PerAxis(0))
