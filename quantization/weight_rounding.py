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

from numerics.arrays import FloatArray, IntArray
from numerics.qparams import PerAxis, QuantParams, bounds, quantize
from quantization.methods import WeightRounding
from quantization.observers import weight_qparams

CLIPS_NARROW = np.linspace(1.0, 0.55, 9)
CLIPS_WIDE = np.array([1.0, 0.95])
WIDE = 7
"""From this width on, clipping weights does not pay."""
DAMPING = 0.01
"""Added to H's diagonal, as a share of its mean (GPTQ's published code: the same)."""
BLOCK = 64
SWEEPS = 3
"""Of coordinate descent; further ones gain next to nothing."""


def round_weight(
    weight: FloatArray,
    bits: int,
    rounding: WeightRounding,
    hessian: torch.Tensor,
    floor: FloatArray,
    scales: FloatArray | None = None,
) -> tuple[IntArray, QuantParams]:
    """Codes of a weight and their parameters.

    Args:
        weight: (O, K) float32.
        bits: 2 to 8.
        rounding: which way.
        hessian: (K, K) float64, H of what the layer reads; used by `FEEDBACK`.
        floor: (O,) smallest allowed scales.
        scales: (O,) scales that are settled, or None.

    Returns:
        (O, K) codes, and parameters along axis 0.
    """
    if rounding is WeightRounding.NEAREST and scales is None:
        qparams = weight_qparams(weight, bits, floor)
        return quantize(weight, qparams), qparams
    limits = weight_limits(bits)
    tried = _candidates(weight, bits, floor) if scales is None else scales[None]
    tried = np.maximum(tried, floor).astype(np.float32).astype(np.float64)
    rows = torch.from_numpy(weight.astype(np.float64)).repeat(len(tried), 1)
    steps = torch.from_numpy(tried.reshape(-1, 1))
    if rounding is not WeightRounding.FEEDBACK:
        codes = torch.clamp(torch.round(rows / steps), *limits)
        errors = (codes * steps - rows).square().sum(1)
    else:
        codes = _feedback(rows, steps, limits, _damped(hessian))
        difference = codes * steps - rows
        errors = ((difference @ hessian) * difference).sum(1)
    best = errors.reshape(len(tried), -1).argmin(0).numpy()
    chosen = np.arange(weight.shape[0])
    scale = tried[best, chosen].astype(np.float32)
    found = codes.reshape(len(tried), *weight.shape)[torch.from_numpy(best), chosen]
    if rounding is WeightRounding.FEEDBACK:
        steps = torch.from_numpy(scale.astype(np.float64))[:, None]
        found = _descend(found, rows[: len(weight)], steps, limits, _damped(hessian))
    zeros = np.zeros(scale.shape, np.int32)
    return found.numpy().astype(np.int8), QuantParams(scale, zeros, *limits, PerAxis(0))


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


def _damped(hessian: torch.Tensor) -> torch.Tensor:
    """H with a diagonal that makes it invertible, dead inputs (all 0) included."""
    mean = float(hessian.diagonal().mean())
    ridge = DAMPING * mean if mean > 0 else 1.0
    return hessian + ridge * torch.eye(len(hessian), dtype=hessian.dtype)


def _feedback(
    rows: torch.Tensor, steps: torch.Tensor, limits: tuple[int, int], hessian: torch.Tensor
) -> torch.Tensor:
    """GPTQ over all rows at once.

    Args:
        rows: (R, K) float64 weights.
        steps: (R, 1) scales.
        limits: smallest and largest code.
        hessian: (K, K), damped.

    Returns:
        (R, K) codes as float64.
    """
    order = torch.argsort(hessian.diagonal(), descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rest, codes = rows[:, order].clone(), torch.zeros_like(rows)
    for start in range(0, rows.shape[1], BLOCK):
        end = min(start + BLOCK, rows.shape[1])
        errors = torch.zeros(rows.shape[0], end - start, dtype=rows.dtype)
        for column in range(start, end):
            free = rest[:, column : column + 1]
            code = torch.clamp(torch.round(free / steps), *limits)
            error = (free - code * steps) / upper[column, column]
            rest[:, column:end] -= error * upper[column : column + 1, column:end]
            codes[:, column : column + 1] = code
            errors[:, column - start : column - start + 1] = error
        rest[:, end:] -= errors @ upper[start:end, end:]
    return codes[:, torch.argsort(order)]


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
    `_feedback`.

    Args:
        codes: (R, K) float64, to start from; edited in place.
        rows: (R, K) float64 weights.
        steps: (R, 1) scales.
        limits: smallest and largest code.
        hessian: (K, K), damped.

    Returns:
        (R, K) codes.
    """
    columns = range(0, rows.shape[1], BLOCK)
    for _ in range(SWEEPS):
        gradient = (codes * steps - rows) @ hessian
        for start in columns:
            block = slice(start, min(start + BLOCK, rows.shape[1]))
            own, before = hessian[block, block], codes[:, block].clone()
            for k in range(block.stop - start):
                error = codes[:, start + k] * steps[:, 0] - rows[:, start + k]
                wanted = rows[:, start + k] + error - gradient[:, start + k] / own[k, k]
                code = torch.clamp(torch.round(wanted / steps[:, 0]), *limits)
                change = (code - codes[:, start + k]) * steps[:, 0]
                gradient[:, block] += change[:, None] * own[k]
                codes[:, start + k] = code
            change = (codes[:, block] - before) * steps
            gradient[:, block] -= change @ own
            gradient += change @ hessian[block]
    return codes
