"""Depthwise convolutions against loops over taps that are written anew, borders included."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.arrays import IntArray
from vitq.numerics.convolution import (
    PRODUCT_LIMIT,
    Geometry,
    depthwise_sum,
    int_depthwise,
    tap_rows,
)
from vitq.numerics.errors import RangeError
from vitq.numerics.linear import linear_params, linear_sum
from vitq.numerics.qparams import QScheme
from vitq.quantization.ranges.observers import activation_qparams

Shape = tuple[int, int, int, int]


def tap_by_tap(x: IntArray, weight: IntArray, zero: int, place: Geometry) -> IntArray:
    """Read codes (B, H, W, C) one by one; the zero point's code stands outside of the map."""
    batch, height, width, channels = x.shape
    down, across = place.windows((height, width))
    acc = np.zeros((batch, down, across, channels), np.int64)
    taps = product(*map(range, (batch, down, across, *place.kernel)))
    for b, y, z, i, j in taps:
        at = y * place.stride[0] - place.before[0] + i * place.dilation[0]
        beside = z * place.stride[1] - place.before[1] + j * place.dilation[1]
        inside = 0 <= at < height and 0 <= beside < width
        code = x[b, at, beside] if inside else np.full(channels, zero)
        acc[b, y, z] += (code.astype(np.int64) - zero) * weight[:, i, j]
    return acc


def by_table(x: IntArray, weight: IntArray, zero: int, place: Geometry) -> IntArray:
    """Sum by the table of taps."""
    batch, height, width, channels = x.shape
    taps = tap_rows((height, width), place)
    flat = weight.reshape(channels, -1)
    acc = depthwise_sum(x.reshape(batch, -1, channels), taps, flat, zero)
    return acc.reshape(batch, *place.windows((height, width)), channels)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shape, Geometry]:
    """A map that the kernel fits into, or nearly."""
    near, some = st.tuples(*[st.integers(0, 2)] * 2), st.tuples(*[st.integers(1, 3)] * 2)
    place = Geometry(draw(some), draw(some), draw(near), draw(near), draw(some))
    least = [1 + d * (k - 1) for k, d in zip(place.kernel, place.dilation, strict=True)]
    height, width = (n + more for n, more in zip(least, draw(near), strict=True))
    return (draw(st.integers(1, 2)), height, width, draw(st.integers(1, 5))), place


@given(cases())
def test_windows_are_the_places_where_a_kernel_fits(case: tuple[Shape, Geometry]) -> None:
    (_, height, width, _), place = case
    wanted = []
    for axis, length in enumerate((height, width)):
        places = range(-place.before[axis], length + place.after[axis])
        reach = place.dilation[axis] * (place.kernel[axis] - 1)
        fitting = [first for first in places if first + reach in places]
        wanted.append(len(fitting[:: place.stride[axis]]))
    assert place.windows((height, width)) == tuple(wanted)
    assert tap_rows((height, width), place).shape == (np.prod(wanted), np.prod(place.kernel))


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 255), st.integers(0, 2**32 - 1), st.sampled_from(["random", 0, 255]))
def test_sums_are_those_of_the_taps(
    case: tuple[Shape, Geometry], zero: int, seed: int, fill: str | int
) -> None:
    shape, place = case
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape) if fill == "random" else np.full(shape, fill)
    weight = rng.integers(-128, 128, (shape[3], *place.kernel))
    found = by_table(x, weight, zero, place)
    np.testing.assert_array_equal(found, tap_by_tap(x, weight, zero, place))
    bound = np.abs(x - zero).max() * np.abs(weight).sum((1, 2))
    assert (np.abs(found) <= bound).all()


def test_the_result_is_requantized_once() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.integers(0, 256, (1, 5, 4, 3)), rng.integers(-127, 128, (3, 3, 3))
    place = Geometry((3, 3), (2, 1), (1, 1), (1, 1))
    layer = linear_sum(
        weight.reshape(3, -1), np.array([0.01, 0.02, 0.005]), np.array([7, -900, 0]), 0.03, 0
    )
    out = activation_qparams(-3.0, 9.0, 8, QScheme.AFFINE)
    rows, taps = x.reshape(1, -1, 3), tap_rows((5, 4), place)
    found = int_depthwise(rows, taps, linear_params(layer, out), 77).reshape(1, 3, 4, 3)
    exact = (tap_by_tap(x, weight, 77, place) + np.array([7, -900, 0])) * layer.scale
    rounded = np.floor(exact / float(out.scale) + 0.5) + int(out.zero_point)
    expected = np.clip(rounded, out.qmin, out.qmax)
    assert np.abs(found - expected).max() <= 1  # the dyadic factor may move a tie
    assert (found != expected).mean() < 0.01


def test_rows_of_taps() -> None:
    """Written out: a border of zeros on the left and below, int32."""
    rows = tap_rows((2, 3), Geometry((2, 1), (1, 2), (0, 1), (1, 0)))
    assert rows.dtype == np.int32
    assert rows.tolist() == [[-1, -1], [1, 4], [-1, -1], [4, -1]]


def test_a_kernel_alone_is_dense() -> None:
    assert Geometry((2, 3))[1:] == ((1, 1), (0, 0), (0, 0), (1, 1))


def test_a_product_of_codes_fits_16_bits() -> None:
    assert PRODUCT_LIMIT == 2**15 - 1


@pytest.mark.parametrize(("kernel", "size"), [((3, 3), (2, 5)), ((3, 2), (5, 1)), ((9, 1), (2, 5))])
def test_a_kernel_beyond_the_map_is_refused(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    said = f"a kernel of {kernel[0]} x {kernel[1]} reaches beyond a map of {size[0]} x {size[1]}"
    with pytest.raises(RangeError, match=said):
        Geometry(kernel).windows(size)
    assert Geometry(kernel).windows(kernel) == (1, 1)
