"""Depthwise convolutions against loops over taps that are written anew, borders included."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.arrays import IntArray
from vitq.numerics.convolution import Geometry, depthwise_sum, int_depthwise
from vitq.numerics.errors import RangeError
from vitq.numerics.linear import linear_params, linear_sum
from vitq.numerics.qparams import QScheme
from vitq.quantization.ranges.observers import activation_qparams


def tap_by_tap(x: IntArray, weight: IntArray, zero: int, place: Geometry) -> IntArray:
    """Read codes one by one; the zero point's code stands outside of the picture."""
    batch, height, width, channels = x.shape
    _, rows, columns = weight.shape
    down, across = place.size(height, width, (rows, columns))
    acc = np.zeros((batch, down, across, channels), np.int64)
    for b, y, z, i, j in product(*map(range, (batch, down, across, rows, columns))):
        at = y * place.stride_y - place.top + i * place.dilation_y
        beside = z * place.stride_x - place.left + j * place.dilation_x
        inside = 0 <= at < height and 0 <= beside < width
        code = x[b, at, beside] if inside else np.full(channels, zero)
        acc[b, y, z] += (code.astype(np.int64) - zero) * weight[:, i, j]
    return acc


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], tuple[int, int], Geometry]:
    small = st.integers(0, 2)
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    place = Geometry(*(1 + draw(small) for _ in range(2)), *(draw(small) for _ in range(4)),
                     *(1 + draw(small) for _ in range(2)))  # fmt: skip
    least = [1 + d * (k - 1) for k, d in zip(kernel, place[6:], strict=True)]
    shape = (draw(st.integers(1, 2)), *(n + draw(small) for n in least), draw(st.integers(1, 5)))
    return shape, kernel, place


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 255), st.integers(0, 2**32 - 1), st.sampled_from(["random", 0, 255]))
def test_sums_are_those_of_the_taps(
    case: tuple[tuple[int, int, int, int], tuple[int, int], Geometry],
    zero: int, seed: int, fill: str | int,
) -> None:  # fmt: skip
    shape, kernel, place = case
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape) if fill == "random" else np.full(shape, fill)
    weight = rng.integers(-128, 128, (shape[3], *kernel))
    found = depthwise_sum(x, weight, zero, place)
    np.testing.assert_array_equal(found, tap_by_tap(x, weight, zero, place))
    bound = np.abs(x - zero).max() * np.abs(weight).sum((1, 2))
    assert (np.abs(found) <= bound).all()


def test_the_result_is_requantized_once() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.integers(0, 256, (1, 5, 4, 3)), rng.integers(-127, 128, (3, 3, 3))
    place = Geometry(2, 1, 1, 1, 1, 1, 1, 1)
    layer = linear_sum(weight, np.array([0.01, 0.02, 0.005]), np.array([7, -900, 0]), 0.03, 0)
    out = activation_qparams(-3.0, 9.0, 8, QScheme.AFFINE)
    found = int_depthwise(x, linear_params(layer, out), 77, place)
    exact = (
        (tap_by_tap(x, weight, 77, place) + np.array([7, -900, 0])) * layer.scale / float(out.scale)
    )
    expected = np.clip(np.floor(exact + 0.5) + int(out.zero_point), out.qmin, out.qmax)
    assert np.abs(found - expected).max() <= 1  # the dyadic factor may move a tie
    assert (found != expected).mean() < 0.01


def test_a_kernel_beyond_the_map_is_refused() -> None:
    with pytest.raises(RangeError, match="a kernel of 3 x 3 reaches beyond a map of 2 x 5"):
        Geometry(1, 1, 0, 0, 0, 0, 1, 1).size(2, 5, (3, 3))
