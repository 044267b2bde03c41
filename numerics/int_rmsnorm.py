"""RMS normalization in integers: I-LayerNorm (`numerics.int_layernorm`) without the mean.

    x / sqrt(mean(x**2) + eps) * gamma

For a row x of C codes with scale ``sigma`` and zero point 0 it is I-LayerNorm with S = 0:

    d_i = C x_i,  V = C sum(x**2) + eps_q                 = C**2 (mean square + eps / sigma**2)

and the rest as there, without beta. ``|d_i| / sqrt(V) <= sqrt(C)``, which a row of one code other
than 0 attains (around a mean it is sqrt(C - 1)): F has one bit less where C is a power of 4, so
that t stays an int16.

**L2 normalization** ``x / max(|x|, eps)`` (cosine attention, XCiT) is the same with gamma =
1 / sqrt(C) and, for its eps, eps**2 / C: ``x / sqrt(|x|**2 + eps**2)``, which differs where ``|x|``
is about eps, by (eps / |x|)**2 / 2 beyond. PyTorch's eps is 1e-12, far below one step of any
input. eps_q is at least 1, what of a row of zeros makes zeros; it makes a row of a single 1 shorter
by 1 / (2 C), any other row by less.
"""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.int_layernorm import (
    LayerNormParams,
    affine_params,
    fraction_bits,
    normalized,
)
from vitq.numerics.qparams import QuantParams


def rmsnorm_params(
    scale: float, eps: float, gamma: FloatArray, out: QuantParams
) -> LayerNormParams:
    """Integers for one RMS normalization.

    Args:
        scale: real value of one input step, > 0; its zero point is 0.
        eps: as in the float layer, > 0.
        gamma: (C,) float32, any sign, zero allowed.
        out: the output's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if C exceeds 4096 or an integer leaves its range.
    """
    fraction = fraction_bits(gamma.shape[0] + 1)
    return affine_params(scale, eps, gamma, np.zeros_like(gamma), out, fraction)


def int_rmsnorm(x: IntArray, p: LayerNormParams) -> IntArray:
    """RMS normalization over the last axis.

    Args:
        x: (..., C) 16-bit codes at most, of zero point 0.
        p: the integers from `rmsnorm_params`.

    Returns:
        (..., C) int64 in [qmin, qmax].
    """
    return normalized(x.astype(np.int64), 0, p)
