r"""How weights become codes: one scale for each output channel, symmetric.

All functions minimize the error of the layer's output over the calibration data,

    E[|| W x - W_q x ||**2] = tr((W - W_q) H (W - W_q)^T),    H = E[x x^T],

with x what the layer really reads, quantized, and rows weighted by importance.

* `nearest`: every weight to its nearest code; the scale is the largest weight's.
* `clipped`: the same with a searched scale, by the plain squared error of the weights (RepQ-ViT's
  published code searches percentiles).
* `feedback`: column by column, each column's rounding error is made up for by the columns that are
  still free (OBQ, arXiv:2208.11580; GPTQ, arXiv:2210.17323, Eq. 2 and 3, by Cholesky factors).
  Columns go by falling diagonal of H; the scale is searched, each candidate with feedback. From
  the best one's codes, coordinate descent goes on (QuantEase, arXiv:2309.01885, Sec. 3): 1 to 7 %
  less error in DeiT-Tiny's layers at 4 bits, for hardly any time.
"""

import numpy as np
import torch

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.qparams import PerAxis, QuantParams, bounds, quantize
from vitq.quantization.plan.methods import DAMPING, WeightRounding
from vitq.quantization.ranges.observers import weight_qparams

CLIPS_NARROW = np.linspace(1.0, 0.55, 9)
CLIPS_WIDE = np.array([1.0, 0.95])
WIDE = 7
"""From this width on, clipping weights does not pay."""
BLOCK = 64
PART = 1 << 21
"""Weights (16 MiB of float64), all candidates counted, that are rounded at a time: DeiT-Base's MLP
with nine candidates would take 170 MB for each of several copies."""
SWEEPS = 3
"""Of coordinate descent; further ones gain next to nothing."""


def round_weight(
    weight: FloatArray,
    bits: int,
    rounding: WeightRounding,
    hessian: torch.Tensor,
    floor: FloatArray,
    scales: FloatArray | None = None,
    damping: float = DAMPING,
) -> tuple[IntArray, QuantParams]:
    """Codes of a weight and their parameters.

    Args:
        weight: (O, K) float32.
        bits: 2 to 8.
        rounding: which way.
        hessian: (K, K) float64, H of what the layer reads; used by `FEEDBACK`.
        floor: (O,) smallest allowed scales.
        scales: (O,) scales that are settled, or None.
        damping: added to H's diagonal, as a share of its mean.

    Returns:
        (O, K) codes, and parameters along axis 0.
    """
    if rounding is WeightRounding.NEAREST and scales is None:
        qparams = weight_qparams(weight, bits, floor)
        return quantize(weight, qparams), qparams
    tried = _candidates(weight, bits, floor) if scales is None else scales[None]
    tried = np.maximum(tried, floor).astype(np.float32).astype(np.float64)
    feedback = _Feedback(hessian, damping) if rounding is WeightRounding.FEEDBACK else None
    part = max(1, PART // (weight.shape[1] * len(tried)))
    found = [
        _round_channels(weight[at : at + part], tried[:, at : at + part], bits, feedback)
        for at in range(0, len(weight), part)
    ]
    codes, scale = (np.concatenate(parts) for parts in zip(*found, strict=True))
    zeros = np.zeros(scale.shape, np.int32)
    return codes, QuantParams(scale, zeros, *weight_limits(bits), PerAxis(0))


def _round_channels(
    weight: FloatArray, tried: FloatArray, bits: int, feedback: "_Feedback | None"
) -> tuple[IntArray, FloatArray]:
    """Codes of some output channels, each with the best of its scales.

    Args:
        weight: (O, K) float32.
        tried: (candidates, O) float64 scales.
        bits: 2 to 8.
        feedback: None to round to nearest.

    Returns:
        (O, K) int8 codes and (O,) float32 scales.
    """
    limits = weight_limits(bits)
    rows = torch.from_numpy(weight.astype(np.float64)).repeat(len(tried), 1)
    steps = torch.from_numpy(tried.reshape(-1, 1))
    if feedback is None:
        codes = torch.clamp(torch.round(rows / steps), *limits)
        errors = (codes * steps - rows).square().sum(1)
    else:
        codes = feedback.round(rows, steps, limits)
        errors = feedback.errors(codes * steps - rows)
    best = errors.reshape(len(tried), -1).argmin(0).numpy()
    chosen = np.arange(weight.shape[0])
    scale = tried[best, chosen].astype(np.float32)
    found = codes.reshape(len(tried), *weight.shape)[torch.from_numpy(best), chosen]
    if feedback is not None:
        steps = torch.from_numpy(scale.astype(np.float64))[:, None]
        found = _descend(found, rows[: len(weight)], steps, limits, feedback.damped)
    return found.numpy().astype(np.int8), scale


def weight_limits(bits: int) -> tuple[int, int]:
    """Smallest and largest code of a weight.

    Below 8 bits all codes are used: one of 16 more is worth 0.8 dB in DeiT-Tiny's W4/A8. At 8 bits
    -128 is left out, as two products of it do not fit 16 bits.
    """
    return bounds(bits, signed=True, narrow=bits == 8)


def _candidates(weight: FloatArray, bits: int, floor: FloatArray) -> FloatArray:
    """(candidates, O) float64 scales, exactly representable in float32."""
    qmax = weight_limits(bits)[1]
    clips = CLIPS_WIDE if bits >= WIDE else CLIPS_NARROW
    largest = np.abs(weight).max(1).astype(np.float64)
    scales = np.maximum(largest * clips[:, None] / qmax, floor)
    scales = np.where(scales > 0, scales, 1.0)
    return scales.astype(np.float32).astype(np.float64)


def _damped(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """H with a diagonal that makes it invertible, dead inputs (all 0) included."""
    mean = float(hessian.diagonal().mean())
    ridge = damping * mean if mean > 0 else 1.0
    return hessian + ridge * torch.eye(len(hessian), dtype=hessian.dtype)


class _Feedback:
    """GPTQ over rows of weights that read the same.

    What is done column by column is left to NumPy: PyTorch wakes all its threads for a few thousand
    values, and where another process has the second core, waits a millisecond for them. NumPy's own
    `clip` takes longer there than a column's rounding.

    Args:
        hessian: (K, K) float64, H.
        damping: as for `round_weight`.
    """

    def __init__(self, hessian: torch.Tensor, damping: float) -> None:
        self.hessian = hessian
        self.damped = _damped(hessian, damping)
        self._order = torch.argsort(self.damped.diagonal(), descending=True)
        ordered = self.damped[self._order][:, self._order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        self._upper = torch.linalg.cholesky(inverse, upper=True)

    def errors(self, difference: torch.Tensor) -> torch.Tensor:
        """(R,) error of the output that (R, K) errors of the weights make."""
        return ((difference @ self.hessian) * difference).sum(1)

    def round(
        self, rows: torch.Tensor, steps: torch.Tensor, limits: tuple[int, int]
    ) -> torch.Tensor:
        """Round column by column.

        Args:
            rows: (R, K) float64 weights.
            steps: (R, 1) scales.
            limits: smallest and largest code.

        Returns:
            (R, K) codes as float64.
        """
        upper, scales, (low, high) = self._upper.numpy(), steps[:, 0].numpy(), limits
        pending = rows.T.contiguous()[self._order]  # (K, R): a column is one piece of memory
        found = torch.zeros_like(pending)
        rest, codes = pending.numpy(), found.numpy()
        for start in range(0, len(rest), BLOCK):
            end = min(start + BLOCK, len(rest))
            errors = np.zeros_like(rest[start:end])
            for column in range(start, end):
                code = np.rint(rest[column] / scales)
                codes[column] = np.minimum(np.maximum(code, low), high)
                error = (rest[column] - codes[column] * scales) / upper[column, column]
                rest[column:end] -= upper[column, column:end, None] * error
                errors[column - start] = error
            pending[end:] -= self._upper[start:end, end:].T @ torch.from_numpy(errors)
        return found[torch.argsort(self._order)].T


def _descend(
    codes: torch.Tensor,
    rows: torch.Tensor,
    steps: torch.Tensor,
    limits: tuple[int, int],
    hessian: torch.Tensor,
) -> torch.Tensor:
    """Coordinate descent from codes to better ones.

    Column by column, the code with the smallest error, all others as they are; with e = W_q - W,

        e_k' = e_k - (e H)_k / H_kk,    code = round((w_k + e_k') / step)

    so that no step makes the error larger. Products wait for a whole block of columns, as in
    `_Feedback`, and only columns that are still to come in a sweep need them: each sweep begins
    with ``e H`` anew.

    Args:
        codes: (R, K) float64, to start from.
        rows: (R, K) float64 weights.
        steps: (R, 1) scales.
        limits: smallest and largest code.
        hessian: (K, K), damped.

    Returns:
        (R, K) codes.
    """
    settled, rows, scales = codes.T.contiguous(), rows.T.contiguous(), steps[:, 0]
    now, wanted, scale, (low, high) = settled.numpy(), rows.numpy(), scales.numpy(), limits
    for _ in range(SWEEPS):
        gradient = hessian @ (settled * scales - rows)
        for start in range(0, len(rows), BLOCK):
            block = slice(start, min(start + BLOCK, len(rows)))
            own, before = hessian[block, block].numpy(), settled[block].clone()
            slope = gradient[block].numpy()
            for k in range(block.stop - start):
                error = now[start + k] * scale - wanted[start + k]
                best = wanted[start + k] + error - slope[k] / own[k, k]
                code = np.minimum(np.maximum(np.rint(best / scale), low), high)
                slope[k + 1 :] += own[k, k + 1 :, None] * ((code - now[start + k]) * scale)
                now[start + k] = code
            later = slice(block.stop, None)
            gradient[later] += hessian[later, block] @ ((settled[block] - before) * scales)
    return settled.T
