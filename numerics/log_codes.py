r"""Attention weights on a logarithmic grid: log2, log-sqrt2 and finer; they multiply by shifting.

RepQ-ViT (arXiv:2212.08254, on Softmax activations; log2 is FQ-ViT's, arXiv:2111.13824) quantizes
the output of Softmax to

    k = clamp(round(-r log2(p)), 0, 2**b - 1),    p' = 2**(-k / r)

with r = 1 (log2) or r = 2 (log sqrt 2). Here p is the exponential relative to its row's maximum,
which is not normalized yet, so that k needs no logarithm: it is the score's distance from the
maximum, rescaled,

    k = min(rescale(max(x) - x, sigma * log2(e) * r), 2**b - 1)          one rounding, HALF_UP

and its weight is the 8-bit Shiftmax code of exactly k / r octaves (`shiftmax.code_weights`)

    w(k) = (y(k mod r) + 2**(6 + n)) >> (7 + n),    n = k div r,    y(j) = exp2_fraction(j / r)

r mantissas and a shift: for log2 the one mantissa is 1; for log sqrt 2 the odd codes take the
other one, 1 / sqrt(2). The row's sum, which the product is divided by, is the sum of the weights.

**Multiplying by a weight is a shift.** For log2, ``w(k) = 2**(8 - k) - [k = 0]``, so

    sum_j w(k_j) v_j  =  sum_j (v_j << 8) >> k_j   -   sum over k_j = 0 of v_j

exactly (k <= 8; 0 beyond). For log sqrt 2 the odd codes are sums of four such shifts, one for each
bit of their mantissa 180 = 255 / sqrt(2), rounded once: ``w(2n + 1) = (180 + half) >> n``. An 8-bit
dot product (vpdpbusd, sdot, smmla) of weights and values computes just these integers, 64 products
in an instruction; shifting lanes would first have to widen them to 32 bits. So kernels make the
weight by a shift and leave the product to the dot product, and no code is ever stored.

Deviations from the papers: codes relative to the maximum and not to the sum (the sum is the same
for all of a row; the quantizer's scale has no counterpart); weights are integers of 1/255, within
`MAX_CODE_ERROR` of ``255 * 2**(-k / r)``; beyond nine octaves they are 0. With ``zero`` a distance
that rounds to 2**b or more weighs nothing, as in RepQ-ViT's published code; its paper clamps.
"""

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.exp2 import MAX_ERROR
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    CODE_MAX,
    LOG2_FRACTION_BITS,
    CodeParams,
    code_weights,
    grid_params,
)
from vitq.numerics.twin_codes import describe_twin

STEPS = (1, 2, 4, 8)
"""Codes for each octave: of log2, log sqrt 2, and twice and four times as fine."""
NAMES = {1: "log2", 2: "log sqrt 2", 4: "log 2**(1/4)", 8: "log 2**(1/8)"}
LEVELS = tuple(2**bits for bits in range(2, 9))
MAX_CODE_ERROR = 0.5 + CODE_MAX * MAX_ERROR


def log_code_params(scale: float, steps: int, levels: int, zero: bool) -> CodeParams:
    """Integers for scores of one scale.

    Args:
        scale: real value of one score step (attention scale included), > 0.
        steps: r, one of `STEPS`.
        levels: 2**b, one of `LEVELS`.
        zero: whether a distance beyond the last code weighs nothing, instead of the last weight.

    Returns:
        The integers for `numerics.shiftmax.shiftmax_codes`; where the last codes weigh 0 anyway,
        the limit is where that begins.

    Raises:
        VitqError: for other steps or levels.
    """
    if steps not in STEPS or levels not in LEVELS:
        choices = f"steps {', '.join(map(str, STEPS))}, levels {', '.join(map(str, LEVELS))}"
        raise VitqError(f"log codes of {steps} steps and {levels} levels: choose {choices}")
    grid_bits = steps.bit_length() - 1
    limit = levels if zero else levels - 1
    most = ((CODE_LIMIT + 1) >> (LOG2_FRACTION_BITS - grid_bits)) - 1
    return grid_params(scale, grid_bits, min(limit, most), zero and limit <= most)


def describe_codes(p: CodeParams) -> str:
    """Return what a person reads of an attention's codes: ``log sqrt 2, 16 weights``."""
    if p.coarse:
        return describe_twin(p.twin)
    if p.grid_bits == LOG2_FRACTION_BITS:
        return "uniform"
    return f"{NAMES[1 << p.grid_bits]}, {len(np.unique(code_table(p)))} weights"


def code_table(p: CodeParams) -> IntArray:
    """Return the weights of all codes: ``w(0)`` to ``w(limit)``, int64."""
    return code_weights(np.arange(p.limit + 1), p)
