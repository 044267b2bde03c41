r"""Twin ranges: one quantizer with two steps, a fine one up to a split and a coarse one above it.

PTQ4ViT (arXiv:2111.12293, Sec. 3.2) quantizes the output of GELU with a step of its own for
negative values, which are small, and one that is ``2**m`` times as large for positive ones, so that
one shift aligns the two. Here the split may lie at any code k, PTQ4ViT's is the zero point z:

    fine   = clamp(round(x / s) + z, qmin, k)
    coarse = clamp(round((x - t) / (s 2**m)), 0, (qmax - k) >> m),      t = (k - z) s
    code   = fine + (coarse << m)

Each range is rounded once. The code is a multiple of the fine step, so that whoever reads it needs
no second product: `Node.out` holds s, z, and [qmin, qmax] in fine steps. There are k - qmin + 1
fine codes and (qmax - k) >> m coarse ones.

Deviation: the paper has a product for each range and shifts one of the results. Here the shift
comes before the one product, whose operand is a byte, so that qmin to qmax are within int8 or
uint8. That limits m: 2**(b-1) negative codes leave room for m <= 5 at 4 bits, 2 at 6 bits and 1 at
7; at 8 bits one step fills the byte, which is one range. DeiT-Tiny's logits do not mind: mean
cosine with the float ones on 68 pictures not calibrated on, w6a6: 0.9681, with m up to 6 also
0.9681; w8a8: 0.9954, with the paper's two ranges, codes of up to 13 bits, 0.9960.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams

LARGEST_SHIFT = 7


class Twin(NamedTuple):
    """Two ranges of one quantizer.

    Attributes:
        split: the last code of the fine range, k.
        shift: a coarse step is ``2**shift`` fine ones.
    """

    split: int
    shift: int


def check_twin(twin: Twin, out: QuantParams) -> None:
    """Refuse ranges that a quantizer does not have.

    Raises:
        VitqError: if the split is none of its codes, the codes do not fit a byte, or the shift is
            out of range.
    """
    if out.dtype.itemsize > 1:
        raise VitqError(
            f"twin ranges have codes from {out.qmin} to {out.qmax}: choose a byte's, -128 to 127 "
            "or 0 to 255"
        )
    if not out.qmin <= twin.split < out.qmax:
        raise VitqError(f"a twin range splits at {twin.split}: choose {out.qmin} to {out.qmax - 1}")
    if not 0 <= twin.shift <= LARGEST_SHIFT:
        raise VitqError(f"a twin range's shift is {twin.shift}: choose 0 to {LARGEST_SHIFT}")


def coarse_range(twin: Twin, out: QuantParams) -> QuantParams:
    """Return the coarse range as a quantizer of ``x - t``."""
    scale = np.float32(out.scale) * np.float32(2**twin.shift)
    return QuantParams.per_tensor(float(scale), 0, 0, (out.qmax - twin.split) >> twin.shift)


def fine_range(twin: Twin, out: QuantParams) -> QuantParams:
    """Return the fine range as a quantizer of x."""
    return QuantParams(out.scale, out.zero_point, out.qmin, twin.split)


def threshold(twin: Twin, out: QuantParams) -> np.float32:
    """Return the real value t where the ranges meet."""
    return np.float32((twin.split - int(out.zero_point)) * np.float32(out.scale))
