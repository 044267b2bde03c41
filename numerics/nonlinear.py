"""Softmax and GELU of a family: one builder and one operator for both families.

Each family's integers have a type of their own, and the type says which operator they are of:

    Nonlinear.VITQ    SoftmaxParams       `numerics.shiftmax.shiftmax`
                      GeluParams          `numerics.shiftgelu.shiftgelu`
    Nonlinear.IVIT    IvitSoftmaxParams   `numerics.ivit.ivit_shiftmax`
                      IvitGeluParams      `numerics.ivit.ivit_shiftgelu`

Formulas, ranges and errors stand in those files.
"""

from typing import NamedTuple

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import (
    IvitGeluParams,
    IvitSoftmaxParams,
    ivit_gelu_params,
    ivit_shiftgelu,
    ivit_shiftmax,
    ivit_softmax_params,
)
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import GeluParams, gelu_params, shiftgelu
from vitq.numerics.shiftmax import (
    SMALLEST_WIDE_SUM,
    NormalizeParams,
    ShiftmaxParams,
    normalize_params,
    shiftmax,
    shiftmax_params,
)
from vitq.numerics.twin import Twin


class SoftmaxParams(NamedTuple):
    """The integers of one normalized Shiftmax.

    Attributes:
        octaves: of the exponent.
        norm: of the division by the row's sum.
    """

    octaves: ShiftmaxParams
    norm: NormalizeParams

    def scalars(self) -> tuple[int, ...]:
        """All integers, in the order in which a kernel reads them (int64 each)."""
        return (*self.octaves, *self.norm)

    @classmethod
    def from_scalars(cls, values: tuple[int, ...]) -> "SoftmaxParams":
        """Return the inverse of `scalars`."""
        split = len(ShiftmaxParams._fields)
        return cls(ShiftmaxParams(*values[:split]), NormalizeParams(*values[split:]))


def softmax_params(
    family: Nonlinear, scale: float, out: QuantParams
) -> SoftmaxParams | IvitSoftmaxParams:
    """Integers of a family's normalized softmax.

    Args:
        family: which one.
        scale: real value of one score step (attention scale included), > 0. A zero point cancels.
        out: the probabilities' parameters, per tensor; I-ViT's are always 1/128 and 0.

    Returns:
        The integers; their type is the family's.

    Raises:
        RangeError: if a scale is out of the family's range.
    """
    if family is Nonlinear.IVIT:
        return ivit_softmax_params(scale)
    norm = normalize_params(1.0 / float(out.scale), SMALLEST_WIDE_SUM, out)
    return SoftmaxParams(shiftmax_params(scale), norm)


def int_softmax(x: IntArray, p: SoftmaxParams | IvitSoftmaxParams) -> IntArray:
    """Softmax over the last axis, by the family of its integers.

    Args:
        x: (..., N) integer scores within +-2**30, N <= 2**16.
        p: the integers from `softmax_params`.

    Returns:
        (..., N) int64 codes of the probabilities.
    """
    if isinstance(p, IvitSoftmaxParams):
        return ivit_shiftmax(x, p)
    return shiftmax(x, p.octaves, p.norm)


def family_gelu_params(
    family: Nonlinear,
    scale: float,
    x_zero_point: int,
    out: QuantParams,
    twin: Twin | None = None,
) -> GeluParams | IvitGeluParams:
    """Integers of a family's GELU.

    Args:
        family: which one.
        scale: real value of one input step, > 0.
        x_zero_point: of the input.
        out: the output's parameters, per tensor.
        twin: its two ranges, if it has them.

    Returns:
        The integers; their type is the family's.

    Raises:
        VitqError: for twin ranges of a family that has none.
        RangeError: if a scale is out of the family's range.
    """
    if twin is not None and not family.has_twin_gelu:
        raise VitqError(f"a GELU of nonlinear = {family} has one range: choose nonlinear = vitq")
    if family is Nonlinear.IVIT:
        return ivit_gelu_params(scale, x_zero_point, out)
    return gelu_params(scale, x_zero_point, out, twin)


def int_gelu(x: IntArray, p: GeluParams | IvitGeluParams) -> IntArray:
    """GELU of integer codes, by the family of its integers.

    Args:
        x: (..., C) 16-bit codes at most.
        p: the integers from `family_gelu_params`.

    Returns:
        int64 in [qmin, qmax], the shape of `x`.
    """
    return ivit_shiftgelu(x, p) if isinstance(p, IvitGeluParams) else shiftgelu(x, p)
