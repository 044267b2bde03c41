r"""I-ViT's Shiftmax and ShiftGELU as published, for models that were trained with them.

After I-ViT (arXiv:2207.01405), Algorithms 1 and 2. Both rest on one shift exponential of integers
I <= 0 with scale S, I0 = round(1 / S):

    Ip = I + (I >> 1) - (I >> 4)                      I log2(e), with log2(e) ~ 1.4375
    q = floor(Ip / -I0),  r = Ip + q I0               -I0 < r <= 0
    exp = ((r >> 1) + I0) << (N - q)                  2**(S r) ~ 1 + S r / 2;  scale S / 2**N
    IntDiv(a, b) = (floor(2**M / b) a) >> (M - 7)     a / b in steps of 2**-7, floor

    Shiftmax(x)  = IntDiv(e, sum(e)),  e = exp(x - max(x)),  N = 15
    ShiftGELU(x) = x IntDiv(e, e + exp(-m)),  e = exp(p - m),  m = max over the row of p, N = 23
                   p = x + (x >> 1) + (x >> 3) + (x >> 4)       1.702 x, with 1.702 ~ 1.6875

The paper leaves N and M open ("sufficiently large"); N is the PyTorch code's. What is fixed here:

* Ip is held at -N I0, as in the published code, so that the shift N - q is never negative.
* M = 62 and 64-bit sums. The published numerator 2**31 - 1 gets coarse: at S = 0.02 ShiftGELU's
  reciprocal is a number from 2 to 5, and a sum of 2**31 or more wraps (TVM) or is clamped
  (PyTorch). In int32 the sums are safe only for ``I0 * N_tokens < 2**16`` (Shiftmax: S > 0.0030 at
  197 tokens) and ``I0 < 128`` (ShiftGELU: S > 0.0079).
* m is at least 0. In a row of negative values only, exp(-m) would have a positive exponent without
  bound; the quotient is the same for any m.
* (r >> 1) is a floor as in the paper and TVM; PyTorch keeps the half.

The two published copies differ from each other and from the paper: N = 15 (PyTorch) and 16 (TVM)
in Shiftmax; 16- and 8-bit results, a mismatch of 256 in the scale into the second product; I0 is
ceil(1 / S) in both, one more in TVM where 1 / S is an integer; both fold 1.702 into S in place of
the shifts of Algorithm 2. Here the paper decides.

Defects that belong to the method and stay (`numerics.shiftmax` and `numerics.shiftgelu` have none
of them):

* The floors of IntDiv take up to 1/128 from each probability (whole quotients too, unless b is a
  power of two): rows of 197 tokens sum to 0.5 to 0.6 at common scales, and a uniform row to 0.
* round(1 / S) changes the exponent's scale: up to 2.5 % at S = 0.05, up to half for S near 1.
* exp never falls below 2**-N of the row's maximum, so that the sigmoid of a negative x never falls
  below 2**(2.43 max - 23): 0 up to a row maximum of 6, 1/13 at 8, 1/2 from 9.5 on.

Ranges, for I0 <= 2**20, ``|x| < 2**30`` and rows of at most 2**16: exp <= 2**35 and 2**43, the sums
<= 2**51 and 2**44, IntDiv's product <= 2**62, all in int64. For 16-bit codes, ``|Ip| < 2**19`` and
``|x IntDiv| <= 2**23`` fit into int32.

Errors against float for S <= `ERROR_SCALE`: a probability is within `SHIFTMAX_MAX_ERROR`; GELU,
before the output's rounding and for row maxima up to `GELU_RANGE`, is within
`SHIFTGELU_MAX_ERROR` + ``|x| / 128``.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import requantize, scalar_dyadic, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.qparams import QuantParams

SOFTMAX_OCTAVES = 15
GELU_OCTAVES = 23
RECIPROCAL_BITS = 62  # int64 holds 2**62, and no sum that UNIT_LIMIT allows reaches it
CODE_BITS = 7
CODE_SCALE = np.float32(1 / 2**CODE_BITS)
CODE_MAX = 2**CODE_BITS
UNIT_LIMIT = 2**20

ERROR_SCALE = 0.05
SHIFTMAX_MAX_ERROR = 0.07
SHIFTGELU_MAX_ERROR = 0.04
GELU_RANGE = 6.0


class IvitSoftmaxParams(NamedTuple):
    """The integer of one Shiftmax: I0 = round(1 / S) (int64)."""

    i0: int


class IvitGeluParams(NamedTuple):
    """The integers of one ShiftGELU, in the order in which a kernel reads them (int64 each)."""

    x_zero_point: int
    i0: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


def _unit(scale: float) -> int:
    """I0: how many steps make 1."""
    if not (np.isfinite(scale) and scale > 0):
        raise RangeError(f"an input scale of {scale} for I-ViT is not a positive finite number")
    unit = np.rint(1 / np.float64(scale))
    if not 1 <= unit <= UNIT_LIMIT:
        raise RangeError(
            f"I-ViT's shift exponential cannot represent an input scale of {scale:.3g}: "
            f"it must be between {1 / UNIT_LIMIT:.1g} and 2; choose nonlinear = vitq"
        )
    return int(unit)


def ivit_softmax_params(scale: float) -> IvitSoftmaxParams:
    """Integers for scores of one scale.

    Args:
        scale: real value of one score step (attention scale included), 2**-20 to below 2.

    Returns:
        The integer.

    Raises:
        RangeError: if the scale is out of range.
    """
    return IvitSoftmaxParams(_unit(scale))


def ivit_gelu_params(scale: float, zero_point: int, out: QuantParams) -> IvitGeluParams:
    """Integers for one input scale and one output quantizer.

    Args:
        scale: real value of one input step, 2**-20 to below 2.
        zero_point: of the input.
        out: the output's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if a scale is out of range.
    """
    unit = _unit(scale)
    dyadic = to_dyadic(scale / CODE_MAX / float(out.scale))
    return IvitGeluParams(
        zero_point,
        unit,
        int(dyadic.multiplier),
        int(dyadic.shift),
        int(out.zero_point),
        out.qmin,
        out.qmax,
    )


def shift_exp(x: IntArray, i0: int, octaves: int) -> IntArray:
    """``exp(S x)`` in steps of S / 2**octaves by shifts (the paper's ShiftExp).

    Args:
        x: any shape, int64, -2**31 < x <= 0.
        i0: round(1 / S), at least 1.
        octaves: N; results are held at 2**-N.

    Returns:
        int64 in [i0, i0 << octaves], the shape of `x`.
    """
    power = np.maximum(x + (x >> 1) - (x >> 4), -octaves * i0)
    q = -power // i0
    r = power + q * i0
    exponential: IntArray = ((r >> 1) + i0) << (octaves - q)
    return exponential


def int_div(a: IntArray, b: IntArray) -> IntArray:
    """Divide ``a / b`` in steps of 1/128 by a 62-bit reciprocal (the paper's IntDiv, k_out = 8).

    Args:
        a: any shape, int64, 0 <= a <= b.
        b: broadcastable, int64, 1 <= b < 2**62.

    Returns:
        int64 in [0, 128].
    """
    reciprocal = (np.int64(1) << RECIPROCAL_BITS) // b
    quotient: IntArray = (reciprocal * a) >> (RECIPROCAL_BITS - CODE_BITS)
    return quotient


def ivit_shiftmax(x: IntArray, p: IvitSoftmaxParams) -> IntArray:
    """I-ViT's softmax over the last axis (module docstring's formula).

    Args:
        x: (..., N) integer scores, ``|x| < 2**30``, N <= 2**16.
        p: the integer from `ivit_softmax_params`.

    Returns:
        (..., N) int64 in [0, 128], scale `CODE_SCALE`, zero point 0.
    """
    x = x.astype(np.int64)
    e = shift_exp(x - x.max(axis=-1, keepdims=True), p.i0, SOFTMAX_OCTAVES)
    return int_div(e, e.sum(axis=-1, keepdims=True))


def ivit_shiftgelu(x: IntArray, p: IvitGeluParams) -> IntArray:
    """I-ViT's GELU of integer codes, requantized (module docstring's formula).

    Args:
        x: (..., C) 16-bit codes at most; the maximum runs over the last axis.
        p: the integers from `ivit_gelu_params`.

    Returns:
        (..., C) int64 in [qmin, qmax].
    """
    centred = x.astype(np.int64) - p.x_zero_point
    power = centred + (centred >> 1) + (centred >> 3) + (centred >> 4)
    largest = np.maximum(power.max(axis=-1, keepdims=True), 0)
    e = shift_exp(power - largest, p.i0, GELU_OCTAVES)
    sigmoid = int_div(e, e + shift_exp(-largest, p.i0, GELU_OCTAVES))
    dyadic = scalar_dyadic(p.multiplier, p.shift)
    return requantize(centred * sigmoid, dyadic, p.zero_point, p.qmin, p.qmax)
