r"""Search for the scales of activations: the smallest squared error on weighted samples.

Each function takes samples that were drawn with probability proportional to their importance
(`quantization.ranges.importance`), so that a plain mean of squares is the weighted error

    sum_i w_i (Q(x_i) - x_i)**2

of the papers' Hessian-guided search (PTQ4ViT, arXiv:2111.12293, Eq. 7) on what goes into a layer.

Post-GELU values have two ranges (`numerics.twin`): PTQ4ViT's twin uniform quantization (Eq. 5)
gives negative values a fine and positive values a coarse step, whose ratio is a power of two so
that one shift aligns them. Here the border between the two ranges is searched, too: at 4 bits, most
positive values are small and want the fine step, and few codes are needed for the negative ones.
DeiT-Tiny, 4 bits, weighted SQNR of the post-GELU values: one range 13.9 dB, PTQ4ViT's 15.8, with a
searched border 18.0, the best 16 values there are (Lloyd-Max) 18.6.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QScheme, QuantParams, bounds
from vitq.numerics.twin import Twin
from vitq.quantization.ranges.gelu_reach import LEAST_OUTPUT
from vitq.quantization.ranges.observers import activation_qparams

CUTS_NARROW = np.geomspace(0.12, 1.0, 22)
CUTS_WIDE = np.geomspace(0.4, 1.0, 14)
CUTS_FULL = np.linspace(0.8, 1.0, 5)
NARROW = 5
"""Up to this width clipping pays, and the search goes further."""
FULL = 8
"""From this width on steps are fine enough, and pictures to come may reach further than these."""
ROUNDS = 2
CHANNEL_CUTS_NARROW = np.linspace(0.4, 1.0, 16)
CHANNEL_CUTS_WIDE = np.array([1.0, 0.95, 0.9])
CHANNEL_SHIFTS = (-0.1, 0.0, 0.1)
TWIN_CUTS = np.geomspace(0.25, 1.0, 12)
TWIN_SHIFTS = (1, 2, 3)
PTQ4VIT_SHIFTS = (1, 2, 3, 4, 5)
CODES = 256


def quantization_error(values: FloatArray, qparams: QuantParams) -> float:
    """Mean squared error of values against their nearest codes."""
    scale, zero = float(qparams.scale), int(qparams.zero_point)
    codes = np.clip(np.rint(values / scale) + zero, qparams.qmin, qparams.qmax)
    return float(np.square((codes - zero) * scale - values).mean())


def search_range(
    values: FloatArray, bits: int, scheme: QScheme, extent: tuple[float, float] | None = None
) -> QuantParams:
    """Per-tensor parameters: the two ends of the range are cut in turn.

    Args:
        values: (S,) samples.
        bits: of the codes.
        scheme: SYMMETRIC cuts both ends together.
        extent: the widest range to try, if it is not that of the samples.

    Returns:
        The best parameters.
    """
    cuts = CUTS_FULL if bits >= FULL else CUTS_NARROW if bits <= NARROW else CUTS_WIDE
    low, high = extent or (float(values.min()), float(values.max()))
    low, high = min(low, 0.0), max(high, 0.0)

    def best(ranges: list[tuple[float, float]]) -> tuple[float, float]:
        candidates = [activation_qparams(*r, bits, scheme) for r in ranges]
        return ranges[int(np.argmin([quantization_error(values, c) for c in candidates]))]

    if scheme is QScheme.SYMMETRIC:
        return activation_qparams(*best([(low * f, high * f) for f in cuts]), bits, scheme)
    found = (low, high)
    for _ in range(ROUNDS):
        found = best([(found[0], high * f) for f in cuts])
        found = best([(low * f, found[1]) for f in cuts])
    return activation_qparams(*found, bits, scheme)


def search_channels(
    rows: FloatArray, low: FloatArray, high: FloatArray, bits: int
) -> tuple[FloatArray, FloatArray]:
    """Choose a range for each channel.

    Args:
        rows: (R, C) samples.
        low: (C,) widest lower ends.
        high: (C,) widest upper ends.
        bits: of the codes.

    Returns:
        Lower and upper ends, (C,) each: those with the smallest squared error of an affine
        quantizer with a rounded zero point that need not represent 0.
    """
    qmin, qmax = bounds(bits, signed=True)
    if bits >= FULL:
        return low, high
    cuts = CHANNEL_CUTS_NARROW if bits <= NARROW else CHANNEL_CUTS_WIDE
    best = np.full(low.shape, np.inf)
    found_low, found_high = low.copy(), high.copy()
    for cut in cuts[np.argsort(-cuts)]:
        for shift in CHANNEL_SHIFTS if cut < 1 else (0.0,):
            middle = (low + high) / 2 + shift * (high - low) * (1 - cut)
            a, b = middle - cut * (high - low) / 2, middle + cut * (high - low) / 2
            scale = np.maximum((b - a) / (qmax - qmin), 1e-30)
            zero = np.rint(qmin - a / scale)
            codes = np.clip(np.rint(rows / scale) + zero, qmin, qmax)
            error = np.square((codes - zero) * scale - rows).sum(0)
            better = error < best
            best = np.where(better, error, best)
            found_low = np.where(better, a, found_low)
            found_high = np.where(better, b, found_high)
    return found_low, found_high


class TwinParams(NamedTuple):
    """A quantizer of two ranges.

    Attributes:
        qparams: of the fine range; the bounds are those of both.
        twin: where the ranges meet, and the ratio of their steps.
    """

    qparams: QuantParams
    twin: Twin


def twin_error(values: FloatArray, found: TwinParams) -> float:
    """Mean squared error of values quantized to two ranges (`numerics.twin`)."""
    q, twin = found
    scale, zero = float(q.scale), int(q.zero_point)
    border, coarse = (twin.split - zero) * scale, scale * 2**twin.shift
    fine = np.clip(np.rint(values / scale) + zero, q.qmin, twin.split)
    above = np.clip(np.rint((values - border) / coarse), 0, (q.qmax - twin.split) >> twin.shift)
    return float(np.square((fine - zero) * scale + above * coarse - values).mean())


def twin_params(scale: float, negative: int, fine: int, shift: int, bits: int) -> TwinParams | None:
    """Parameters from the numbers of codes.

    Args:
        scale: fine step.
        negative: codes below 0.
        fine: codes in the fine range, those below 0 and 0 included.
        shift: m.
        bits: 2**bits codes in all.

    Returns:
        The parameters, None where the coarse codes do not fit a byte (`numerics.twin`).
    """
    top = fine - 1 + ((2**bits - fine) << shift)
    if top > CODES - 1:
        return None
    low, _ = bounds(8, signed=True)
    qparams = QuantParams.per_tensor(scale, negative + low, low, top + low)
    return TwinParams(qparams, Twin(fine - 1 + low, shift))


def search_twin(values: FloatArray, bits: int, twin: bool = False) -> TwinParams:
    """Return the best two ranges for post-GELU values.

    Args:
        values: (S,) samples.
        bits: of the codes, 2**bits in all.
        twin: PTQ4ViT's: half of the codes for negative values, the border at 0.

    Returns:
        The best of all borders, steps and ratios tried.
    """
    high = max(float(values.max()), LEAST_OUTPUT)
    best: tuple[float, TwinParams] | None = None
    for negative, fine, shift in _partitions(bits, twin):
        for cut in TWIN_CUTS:
            reach = fine - 1 - negative + ((2**bits - fine) << shift)
            found = twin_params(cut * high / max(reach, 1), negative, fine, shift, bits)
            if found is None:
                continue
            error = twin_error(values, found)
            if best is None or error < best[0]:
                best = error, found
    assert best is not None
    return best[1]


def _partitions(bits: int, twin: bool) -> list[tuple[int, int, int]]:
    """(negative, fine, shift) to try."""
    levels = 2**bits
    if twin:
        return [(levels // 2, levels // 2 + 1, shift) for shift in PTQ4VIT_SHIFTS]
    step = max(1, levels // 16)
    return [
        (negative, fine, shift)
        for shift in TWIN_SHIFTS
        for fine in range(max(2, 3 * step), levels - 3 * step, step)
        for negative in sorted({max(1, n * step // 2) for n in (1, 2, 4, 6)})
        if negative < fine
    ]
