r"""I-LayerNorm: layer normalization in integers.

After I-ViT (arXiv:2207.01405, Sec. 3.4): mean, variance and square root in integers. For a row x
of C codes with scale ``sigma``:

    S = sum(x),  d_i = C x_i - S                          exact, no division for the mean
    V = C sum(x**2) - S**2 + eps_q                        = C**2 (variance + eps / sigma**2)
    k = (62 - bitlength(V)) >> 1,  root = isqrt(V << 2k)   root in [2**30, 2**31)
    r = (2**61 - 1) // root
    t_i = (d_i r + half) >> (61 - k - F)                   (x_i - mean) / std in Q_F, 16 bits
    y_i = clamp((t_i m_i + b_i) >> s, qmin, qmax)

``|d_i| / sqrt(V) <= sqrt(C - 1)`` bounds t, so F = 15 - ceil(log2(sqrt(C))) bits always fit into
int16. gamma / output scale becomes m_i (16-bit, signed: a negative gamma is a negative multiplier);
beta, the output's zero point and the rounding constant become b_i (int32). A channel with gamma
= 0 has m_i = 0 and yields its constant: dead channels need no special case.

Deviations from I-ViT: the mean is not rounded, the root is exact (floor) because it is seeded from
the leading-zero count of a normalized radicand and not from 2**16, beta is not divided by gamma,
eps is kept, 64-bit sums cannot wrap for 16-bit codes and C <= 4096.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import to_shared_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import QuantParams

MAX_CHANNELS = 4096
RECIPROCAL_BITS = 61
MULTIPLIER_BITS = 14
SHIFT_LIMIT = 30
ADDEND_LIMIT = 2.0**29


class LayerNormParams(NamedTuple):
    """The integers of one layer normalization.

    Attributes:
        multiplier: (C,) int32, ``|m| <= 2**14``.
        addend: (C,) int32, ``|b| <= 2**30``.
        eps_q: C**2 eps / sigma**2, at least 1.
        fraction_bits: F.
        shift: s.
        qmin: of the output.
        qmax: of the output.
    """

    multiplier: IntArray
    addend: IntArray
    eps_q: int
    fraction_bits: int
    shift: int
    qmin: int
    qmax: int

    def scalars(self) -> IntArray:
        """(eps_q, fraction_bits, shift, qmin, qmax) as int64, the order kernels read them in."""
        return np.array(
            [self.eps_q, self.fraction_bits, self.shift, self.qmin, self.qmax], np.int64
        )


def fraction_bits(channels: int) -> int:
    """F: how many fraction bits of a normalized value fit into int16 for this many channels."""
    whole = 0
    while 4**whole < channels:  # 2**whole >= sqrt(C) > |t|
        whole += 1
    return 15 - whole


def layernorm_params(
    scale: float, eps: float, gamma: FloatArray, beta: FloatArray, out: QuantParams
) -> LayerNormParams:
    """Integers for one layer normalization.

    Args:
        scale: real value of one input step, > 0. A zero point cancels and is not needed.
        eps: as in the float layer, > 0.
        gamma: (C,) float32, any sign, zero allowed.
        beta: (C,) float32.
        out: the output's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if C exceeds 4096 or an integer leaves its range.
    """
    return affine_params(scale, eps, gamma, beta, out, fraction_bits(gamma.shape[0]))


def affine_params(
    scale: float,
    eps: float,
    gamma: FloatArray,
    beta: FloatArray,
    out: QuantParams,
    fraction: int,
) -> LayerNormParams:
    """Integers for one normalization whose values have some number of fraction bits.

    Args:
        scale: real value of one input step, > 0.
        eps: as in the float layer, > 0.
        gamma: (C,) float32, any sign, zero allowed.
        beta: (C,) float32.
        out: the output's parameters, per tensor.
        fraction: F, so that every normalized value fits into int16.

    Returns:
        The integers.

    Raises:
        RangeError: if C exceeds 4096 or an integer leaves its range.
    """
    eps_q = _quantized_eps(scale, eps, gamma.shape[0])
    if not (np.all(np.isfinite(gamma)) and np.all(np.isfinite(beta))):
        raise RangeError("LayerNorm weights are not finite (NaN or Inf)")
    out_scale = float(out.scale)
    factor = gamma.astype(np.float64) / out_scale * 2.0**-fraction
    offset = beta.astype(np.float64) / out_scale + float(out.zero_point)
    largest = max(float(np.abs(offset).max()), 1.0)
    limit = min(SHIFT_LIMIT, int(np.floor(np.log2(ADDEND_LIMIT / largest))))
    if limit < 1:
        raise RangeError("LayerNorm beta is too large for its output scale")
    dyadic = to_shared_dyadic(factor, MULTIPLIER_BITS, limit)
    shift = int(dyadic.shift[0])
    addend = np.rint(np.ldexp(offset, shift)).astype(np.int64) + (1 << (shift - 1))
    return LayerNormParams(
        dyadic.multiplier, addend.astype(np.int32), eps_q, fraction, shift, out.qmin, out.qmax
    )


def _quantized_eps(scale: float, eps: float, channels: int) -> int:
    """Return the eps in the units of V: C**2 eps / sigma**2, at least 1."""
    if channels > MAX_CHANNELS:
        raise RangeError(f"LayerNorm over {channels} channels: at most {MAX_CHANNELS} are proven")
    eps_real = float(np.float32(eps)) * channels**2 / scale**2
    if eps_real >= 2.0**60:
        raise RangeError(f"LayerNorm eps {eps} is too large for an input scale of {scale:.3g}")
    return max(int(np.rint(eps_real)), 1)


def isqrt_normalized(n: IntArray) -> IntArray:
    """Floor square root of radicands in [2**60, 2**62), exact.

    Newton's iteration from above starts at 2**31, at most a factor 2 off; the relative error goes
    1, 1/4, 1/40, 3e-4, 5e-8, 1e-15, so five steps end at the root or one above it.

    Args:
        n: any shape, int64.

    Returns:
        int64 in [2**30, 2**31).
    """
    x: IntArray = np.full(n.shape, 1 << 31, np.int64)
    for _ in range(5):
        x = (x + n // x) >> 1
    return x - (x * x > n)


def bit_length(n: IntArray) -> IntArray:
    """Count the bits of positive int64 values (64 minus the leading-zero count), exact."""
    n = np.asarray(n, np.int64)
    length: IntArray = np.zeros(n.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        large = n >= (np.int64(1) << step)
        length += np.where(large, step, 0)
        n = n >> np.where(large, step, 0)
    return length + 1


def int_layernorm(x: IntArray, p: LayerNormParams) -> IntArray:
    """Layer normalization over the last axis (module docstring's formula).

    Args:
        x: (..., C) 16-bit codes at most.
        p: the integers from `layernorm_params`.

    Returns:
        (..., C) int64 in [qmin, qmax].
    """
    x = x.astype(np.int64)
    return normalized(x, x.sum(axis=-1, keepdims=True), p)


def normalized(x: IntArray, total: IntArray | int, p: LayerNormParams) -> IntArray:
    """Normalize rows around ``total / C``, their mean in I-LayerNorm.

    Args:
        x: (..., C) int64, 16-bit codes at most.
        total: S, (..., 1), or one for all rows.
        p: the integers.

    Returns:
        (..., C) int64 in [qmin, qmax].
    """
    channels = x.shape[-1]
    squares = (x * x).sum(axis=-1, keepdims=True)
    variance = channels * squares - total * total + p.eps_q
    k = (62 - bit_length(variance)) >> 1
    root = isqrt_normalized(variance << (2 * k))
    reciprocal = ((np.int64(1) << RECIPROCAL_BITS) - 1) // root
    shift = RECIPROCAL_BITS - k - p.fraction_bits
    t = ((channels * x - total) * reciprocal + (np.int64(1) << (shift - 1))) >> shift
    y = (t * p.multiplier.astype(np.int64) + p.addend.astype(np.int64)) >> p.shift
    return np.clip(y, p.qmin, p.qmax)
