"""ShiftGELU against Python integers and the exact (erf) GELU."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics import shiftgelu as module
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.exp2 import ONE, mulhrs
from vitq.numerics.qparams import QuantParams
from vitq.numerics.rounding import Rounding, shift_right
from vitq.numerics.shiftgelu import (
    EXPONENT_COEFFICIENTS,
    MAX_ERROR,
    MULTIPLIER_MAX,
    STEP_BITS,
    TAIL_LIMIT,
    TAIL_RANGE,
    GeluParams,
    gelu_params,
    shiftgelu,
    shiftgelu_tail,
)
from vitq.numerics.twin import Twin

HALF_UP = Rounding.HALF_UP
TAIL_CODES = np.arange(2 * TAIL_LIMIT + 2)
LARGEST_TAIL = 0.17


def test_constants_are_as_documented() -> None:
    assert (MAX_ERROR, module.MULTIPLIER_BITS, MULTIPLIER_MAX) == (4e-4, 15, 2**15 - 1)
    assert (module.WORD_SHIFT, module.SHIFT_LIMIT, STEP_BITS, module.UP_LIMIT) == (15, 30, 7, 8)
    assert (TAIL_RANGE, TAIL_LIMIT) == (4.0, 2**14 - 1)


def normal_tail(u: FloatArray) -> FloatArray:
    """1 - Phi(u)."""
    return np.array([math.erfc(v / math.sqrt(2)) / 2 for v in np.ravel(u)]).reshape(np.shape(u))


def gelu(x: FloatArray) -> FloatArray:
    """The exact GELU."""
    return x * normal_tail(-x)


def output(scale: float, zero_point: int = 0, bits: int = 16) -> QuantParams:
    """Signed parameters of one width."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return QuantParams.per_tensor(scale, zero_point, low, high)


def literal(x: int, p: GeluParams) -> int:
    """The module's formula for one code, with Python integers."""

    def half_up(a: int, b: int) -> int:
        return (a * b + 16384) >> 15

    def shifted(a: int, bits: int) -> int:
        return a if bits == 0 else (a + (1 << (bits - 1))) >> bits

    centred = x - p.x_zero_point
    v = 2 * shifted(min(abs(centred), p.farthest) * p.in_multiplier, p.in_shift)
    g = 2055 + half_up(9251 + half_up(16345 + half_up(3262, v), v), v)
    f, n = (g % 2048) * 16, g // 2048
    y = 32640 + half_up(-22566 + half_up(7539 + half_up(-1293, f), f), f)
    h = half_up(v, shifted(y, n))
    rest = max(centred, 0) * 2**p.up - shifted(h * p.tail_multiplier, p.tail_shift)
    t = shifted(rest * p.out_multiplier, p.out_shift)
    fine = min(max(shifted(t, p.more) + p.zero_point, p.qmin), p.split)
    above = shifted(t - (p.split - p.zero_point) * 2**p.more, p.more + p.twin_shift)
    return fine + min(max(above, 0), (p.qmax - p.split) >> p.twin_shift) * 2**p.twin_shift


@settings(deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=5)),
    st.floats(2.0**-16, 0.25),
    st.integers(-(2**15), 2**15 - 1),
    st.floats(2.0**-14, 0.25),
    st.integers(-128, 127),
)
def test_python_integers(
    x: IntArray, scale: float, x_zero: int, out_scale: float, zero: int
) -> None:
    """Any shape, any zero points."""
    p = gelu_params(scale, x_zero, output(out_scale, zero, bits=8))
    expected = [literal(v, p) for v in x.ravel().tolist()]
    assert shiftgelu(x, p).tolist() == np.reshape(expected, x.shape).tolist()


def test_saturated_codes() -> None:
    """Around 4, where the tail is held, in an output fine enough to show its last unit."""
    p = gelu_params(2e-4, 0, output(1e-6, 200))
    x = np.arange(-20100, -19900, 3)
    assert shiftgelu(x, p).tolist() == [literal(v, p) for v in x.tolist()]


def test_tail_error_for_every_code() -> None:
    """h(u) = u (1 - Phi(u)) over the whole range; its documented bounds."""
    u = TAIL_RANGE * TAIL_CODES / 2**15
    tail = shiftgelu_tail(TAIL_CODES)
    assert 0 <= tail.min()
    assert tail.max() <= 1500
    assert np.abs(tail * TAIL_RANGE / ONE - u * normal_tail(u)).max() < 2e-4


def test_documented_fit() -> None:
    """The cubic's error in h, the value held beyond 4, and the rounded coefficients."""
    cubic = [1.00353171, 1.129246, 0.49882001, 0.02488563]
    u = np.linspace(0, 4, 4001)
    fitted = u * 2.0 ** -np.polyval(cubic[::-1], u)
    assert np.abs(fitted - u * normal_tail(u)).max() <= 5.5e-5
    assert 4 * normal_tail(np.array(4.0)) < 1.3e-4
    expected = tuple(round(c * 4**k / 16 * 2**15) for k, c in enumerate(cubic))
    assert expected == EXPONENT_COEFFICIENTS


def test_every_intermediate_is_int16() -> None:
    """Horner's rule over all codes, and the shift of the power of two."""
    g = np.full(TAIL_CODES.shape, EXPONENT_COEFFICIENTS[3])
    for a in EXPONENT_COEFFICIENTS[2::-1]:
        g = a + mulhrs(g, TAIL_CODES)
        assert g.min() >= 0
        assert g.max() <= 2**15 - 1
    assert (g >> 11).max() <= 15


FINE = [3e-3, 1e-3, 3e-4, 1e-4]
OUTPUTS = [0.05, 0.01, 1e-3, 3e-4]


def step_of(scale: float, p: GeluParams) -> float:
    """Real value of one step of r."""
    return scale / 2**p.up


def before_rounding(x: IntArray, scale: float, p: GeluParams) -> FloatArray:
    """r as real numbers."""
    v = 2 * shift_right(np.minimum(np.abs(x), p.farthest) * p.in_multiplier, p.in_shift, HALF_UP)
    tail = shift_right(shiftgelu_tail(v) * p.tail_multiplier, p.tail_shift, HALF_UP)
    return ((np.maximum(x, 0) << p.up) - tail) * step_of(scale, p)


def check_error(x: IntArray, scale: float, out_scale: float) -> None:
    """The documented bounds, before and after the output's rounding."""
    p = gelu_params(scale, 0, output(out_scale))
    bound = MAX_ERROR + 2.0**-14 * np.abs(x * scale) + step_of(scale, p) / 2
    assert np.all(np.abs(before_rounding(x, scale, p) - gelu(x * scale)) <= bound)
    expected = np.clip(gelu(x * scale) / float(np.float32(out_scale)), -(2**15), 2**15 - 1)
    rounding = 0.5 + (2.0 ** -(p.more + 1) if p.more else 0)
    assert np.all(np.abs(shiftgelu(x, p) - expected) <= rounding + bound / out_scale + 1e-6)


@pytest.mark.parametrize("scale", FINE)
@pytest.mark.parametrize("out_scale", OUTPUTS)
def test_documented_error(scale: float, out_scale: float) -> None:
    """The scales of 16-bit codes."""
    step = max(1, int(0.002 / scale))
    reach = int(min(9 / scale, 2**15))
    check_error(np.arange(-reach, reach, step), scale, out_scale)


@pytest.mark.parametrize("scale", [0.2, 0.1, 0.05, 0.02])
@pytest.mark.parametrize("out_scale", OUTPUTS)
def test_error_of_coarse_inputs(scale: float, out_scale: float) -> None:
    """8-bit inputs: the step of r stays fine."""
    check_error(np.arange(-128, 128), scale, out_scale)
    assert step_of(scale, gelu_params(scale, 0, output(out_scale))) < 2.0**-STEP_BITS


@settings(deadline=None)
@given(
    st.floats(2.0**-18, 2.0), st.floats(2.0**-16, 2.0), st.sampled_from([-(2**15), 0, 2**15 - 1])
)
def test_sums_stay_in_int32(scale: float, out_scale: float, zero_point: int) -> None:
    """Largest code distance, largest tail, rounding constants; coarse scales have 8-bit codes."""
    try:
        p = gelu_params(scale, zero_point, output(out_scale))
    except RangeError:
        return
    multipliers = p.in_multiplier, p.tail_multiplier, p.out_multiplier
    assert all(0 <= m <= MULTIPLIER_MAX for m in multipliers)
    assert all(0 <= s <= 15 for s in (p.in_shift, p.tail_shift, p.out_shift))
    largest = 65535 if p.up == 0 else 255
    assert (largest << p.up) * p.out_multiplier + 2**14 <= 2**31 - 1
    assert min(largest, p.farthest) * p.in_multiplier + 2**14 <= 2**31 - 1
    limited = min(65535, p.farthest)
    assert shift_right(limited * p.in_multiplier, p.in_shift, HALF_UP) <= TAIL_LIMIT


@settings(deadline=None)
@given(st.floats(2.0**-12, 0.5))
def test_farthest_is_the_last_that_fits(scale: float) -> None:
    """One more would leave the 16 bits; moved up for mulhrs, it still has them."""
    p = gelu_params(scale, 0, output(0.1))
    assert shift_right(p.farthest * p.in_multiplier, p.in_shift, HALF_UP) <= TAIL_LIMIT
    assert shift_right((p.farthest + 1) * p.in_multiplier, p.in_shift, HALF_UP) > TAIL_LIMIT
    assert p.farthest << (15 - p.in_shift) < 2**15


def test_asymptotes() -> None:
    """Zero stays zero; far to the right x, far to the left 0, clamped at the bounds."""
    p = gelu_params(1e-3, 100, output(1e-3, 5))
    x = np.array([100, 100 + 8000, 100 - 8000, 32767, -32768])
    assert shiftgelu(x, p).tolist() == [5, 8005, 5, 32672, 5]
    narrow = gelu_params(1e-3, 100, output(1e-3, 5, bits=8))
    assert shiftgelu(x, narrow).tolist() == [5, 127, 5, 127, 5]


@settings(deadline=None)
@given(st.integers(-1000, 1000), st.floats(2.0**-12, 0.1))
def test_zero_point_is_a_shift(zero_point: int, scale: float) -> None:
    """Codes and zero point move together."""
    x = np.arange(-500, 500, 7)
    base = shiftgelu(x, gelu_params(scale, 0, output(0.01)))
    moved = shiftgelu(x + zero_point, gelu_params(scale, zero_point, output(0.01)))
    np.testing.assert_array_equal(base, moved)


def test_order_of_the_integers() -> None:
    """Kernels read them by position."""
    assert GeluParams._fields == (
        "x_zero_point",
        "farthest",
        "in_multiplier",
        "in_shift",
        "up",
        "tail_multiplier",
        "tail_shift",
        "out_multiplier",
        "out_shift",
        "more",
        "split",
        "twin_shift",
        "zero_point",
        "qmin",
        "qmax",
    )
    p = gelu_params(1.0, 4, QuantParams.per_tensor(1.0, 7, -50, 50))
    assert (p.x_zero_point, *p[10:]) == (4, 50, 0, 7, -50, 50)


def test_scale_out_of_range() -> None:
    """An output far finer than the input, and scales that are none."""
    with pytest.raises(RangeError, match="too large: check the scales"):
        gelu_params(1.0, 0, output(1e-9))
    with pytest.raises(RangeError, match="not finite: check the scales"):
        gelu_params(math.nan, 0, output(1.0))
    with pytest.raises(RangeError, match="too small: check the scales"):
        gelu_params(1e-10, 0, output(1.0))


@settings(deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(max_dims=2, max_side=5)),
    st.floats(2.0**-14, 0.01),
    st.integers(-128, 7),
    st.integers(1, 7),
    st.integers(-128, 126),
)
def test_twin_ranges_match_python_integers(
    x: IntArray, scale: float, zero_point: int, shift: int, split: int
) -> None:
    """Any split, coarse steps of 2 to 128 fine ones, all codes of a byte."""
    out = QuantParams.per_tensor(0.02, zero_point, -128, 127)
    p = gelu_params(scale, 0, out, Twin(split, shift))
    expected = [literal(int(v), p) for v in x.reshape(-1)]
    assert shiftgelu(x, p).tolist() == np.reshape(expected, x.shape).tolist()


def test_twin_ranges_are_two_quantizers() -> None:
    """PTQ4ViT's: negative values in fine steps, positive ones in steps 16 times as large."""
    out = QuantParams.per_tensor(0.17 / 8, 0, -8, 112)
    x = np.arange(-30000, 30000, 7)
    codes = shiftgelu(x, gelu_params(2e-4, 0, out, Twin(0, 4)))
    exact = gelu(x * 2e-4)
    negative = exact < 0
    fine, coarse = float(out.scale), 16 * float(out.scale)
    wanted = np.where(negative, np.rint(exact / fine), 16 * np.clip(np.rint(exact / coarse), 0, 7))
    apart = np.abs(np.abs(exact / np.where(negative, fine, coarse)) % 1 - 0.5) > 0.03
    np.testing.assert_array_equal(codes[apart], wanted[apart])
    assert set(codes[~negative].tolist()) == {16 * i for i in range(8)}
    assert codes[negative].min() == -8


def test_one_range_is_a_twin_of_its_own_bounds() -> None:
    x = np.arange(-20000, 20000, 3)
    out = output(0.03, -100, bits=8)
    whole, halves = gelu_params(3e-4, 0, out), gelu_params(3e-4, 0, out, Twin(5, 0))
    np.testing.assert_array_equal(shiftgelu(x, whole), shiftgelu(x, halves))


@pytest.mark.parametrize(
    ("twin", "message"),
    [
        (Twin(127, 1), "splits at 127: choose -128 to 126"),
        (Twin(0, 8), "shift is 8: choose 0 to 7"),
    ],
)
def test_twin_ranges_that_no_quantizer_has(twin: Twin, message: str) -> None:
    with pytest.raises(VitqError, match=message):
        gelu_params(1e-3, 0, output(0.02, bits=8), twin)


@pytest.mark.parametrize(("qmin", "qmax"), [(-8, 128), (-129, 0), (-1, 255), (0, 256)])
def test_twin_ranges_fit_a_byte(qmin: int, qmax: int) -> None:
    for low, high in ((-128, 127), (0, 255)):
        gelu_params(1e-3, 0, QuantParams.per_tensor(0.02, 0, low, high), Twin(0, 3))
    with pytest.raises(VitqError, match=f"from {qmin} to {qmax}: choose a byte's, -128 to 127"):
        gelu_params(1e-3, 0, QuantParams.per_tensor(0.02, 0, qmin, qmax), Twin(0, 3))
