"""Product of two activations, or of one and a constant, and a sum of two products: one rounding.

    y = clamp(rescale((a - a_zero_point) * (b - b_zero_point)) + zero_point, qmin, qmax)
    rescale(p) = (p * multiplier + 2**(shift - 1)) >> shift
    multiplier / 2**shift ~ a_scale * b_scale / output scale

    y = clamp(rescale((a - za) * (b - zb) + (c - zc) * (d - zd)) + zero_point, qmin, qmax)

where both products have one step: a rotation ``x cos + x' sin`` (RoPE), x and x' the same codes,
cos and sin tables of one scale.

Gates (``silu(g) * u``), rotary embeddings (``q * cos``), modulation, factors of any sign: the
operands are signed codes, so that a negative factor is a negative code, and either may be a
constant. The operands broadcast to each other over any axes.

Ranges: ``|(a - a_zero_point) * (b - b_zero_point)| < 2**31`` (`relay_passes.check_accumulators`
proves it): 16-bit codes of zero point 0 reach 2**30, and the sum of two products with 14-bit tables
2**29. The rest is `numerics.requantize`'s 64-bit
product. Error: half a step for the rounding, ties up, and a relative 2**-31 of the factor.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import requantize, scalar_dyadic
from vitq.numerics.matmul import product_scale
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import requantize_params


class MultiplyParams(NamedTuple):
    """The integers of one product, in the order in which a kernel reads them (int64 each)."""

    a_zero_point: int
    b_zero_point: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


class MultiplyAddParams(NamedTuple):
    """The integers of a sum of two products, in the order in which a kernel reads them."""

    a_zero_point: int
    b_zero_point: int
    c_zero_point: int
    d_zero_point: int
    multiplier: int
    shift: int
    zero_point: int
    qmin: int
    qmax: int


def multiply_params(
    a_scale: float, a_zero_point: int, b_scale: float, b_zero_point: int, out: QuantParams
) -> MultiplyParams:
    """Integers for ``a * b -> out``.

    Args:
        a_scale: real value of one step of `a`, > 0.
        a_zero_point: of `a`.
        b_scale: of `b`, > 0.
        b_zero_point: of `b`.
        out: the product's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if the factor is not finite or 2**30 or more.
    """
    found = requantize_params(product_scale(a_scale, b_scale), 0, out)
    return MultiplyParams(
        a_zero_point,
        b_zero_point,
        int(found.dyadic.multiplier),
        int(found.dyadic.shift),
        found.zero_point,
        found.qmin,
        found.qmax,
    )


def centred_product(a: IntArray, b: IntArray, a_zero_point: int, b_zero_point: int) -> IntArray:
    """Compute ``(a - a_zero_point) * (b - b_zero_point)``, exact.

    Args:
        a: codes of 16 bits at most.
        b: likewise, broadcastable.
        a_zero_point: of `a`.
        b_zero_point: of `b`.

    Returns:
        int64 of the broadcast shape.
    """
    left = np.subtract(a, a_zero_point, dtype=np.int64)
    return left * np.subtract(b, b_zero_point, dtype=np.int64)


def int_multiply(a: IntArray, b: IntArray, p: MultiplyParams) -> IntArray:
    """Multiply two integer tensors (module docstring's formula).

    Args:
        a: codes of 16 bits at most.
        b: likewise, broadcastable.
        p: the integers from `multiply_params`.

    Returns:
        int64 in [qmin, qmax], of the broadcast shape.
    """
    product = centred_product(a, b, p.a_zero_point, p.b_zero_point)
    dyadic = scalar_dyadic(p.multiplier, p.shift)
    return requantize(product, dyadic, p.zero_point, p.qmin, p.qmax)


def multiply_add_params(
    step: float, zero_points: tuple[int, int, int, int], out: QuantParams
) -> MultiplyAddParams:
    """Integers for ``a * b + c * d -> out``.

    Args:
        step: real value of one step of either product, > 0.
        zero_points: of a, b, c and d.
        out: the sum's parameters, per tensor.

    Returns:
        The integers.

    Raises:
        RangeError: if the factor is not finite or 2**30 or more.
    """
    _, _, *rest = multiply_params(step, 0, 1.0, 0, out)
    return MultiplyAddParams(*zero_points, *rest)


def int_multiply_add(
    a: IntArray, b: IntArray, c: IntArray, d: IntArray, p: MultiplyAddParams
) -> IntArray:
    """Add two products of integer tensors (module docstring's formula).

    Args:
        a: codes of 16 bits at most.
        b: likewise; all four broadcast to each other.
        c: likewise.
        d: likewise.
        p: the integers from `multiply_add_params`.

    Returns:
        int64 in [qmin, qmax], of the broadcast shape.
    """
    total = centred_product(a, b, p.a_zero_point, p.b_zero_point)
    total = total + centred_product(c, d, p.c_zero_point, p.d_zero_point)
    dyadic = scalar_dyadic(p.multiplier, p.shift)
    return requantize(total, dyadic, p.zero_point, p.qmin, p.qmax)
