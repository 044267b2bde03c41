"""The families: what each can do, and that its integers choose its operator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.ivit import (
    IvitGeluParams,
    IvitSoftmaxParams,
    ivit_gelu_params,
    ivit_shiftgelu,
    ivit_shiftmax,
)
from vitq.numerics.nonlinear import (
    SoftmaxParams,
    family_gelu_params,
    int_gelu,
    int_softmax,
    softmax_params,
)
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import GeluParams, gelu_params, shiftgelu
from vitq.numerics.shiftmax import SMALLEST_WIDE_SUM, normalize_params, shiftmax, shiftmax_params
from vitq.numerics.twin import Twin

PROBABILITIES = QuantParams.per_tensor(1 / 255, 0, 0, 255)
OUT = QuantParams.per_tensor(0.03, -4, -128, 127)
TWIN = Twin(8, 2)
TWIN_OUT = QuantParams.per_tensor(0.01, 0, -8, 8 + (7 << 2))
scales = st.floats(2.0**-10, 1.0)
rows = hnp.arrays(np.int8, (3, 6))


def test_what_a_family_can_do() -> None:
    vitq, ivit = Nonlinear
    assert (str(vitq), str(ivit)) == ("vitq", "ivit")
    assert vitq.defers_normalization and vitq.has_twin_gelu and vitq.reads_residual_codes
    assert not (ivit.defers_normalization or ivit.has_twin_gelu or ivit.reads_residual_codes)


def test_names() -> None:
    assert Nonlinear.parse("vitq") is Nonlinear.VITQ
    assert Nonlinear.parse(Nonlinear.IVIT) is Nonlinear.IVIT
    for name in ("other", "VITQ", ""):
        with pytest.raises(VitqError, match=f"nonlinear is '{name}'.*: choose vitq or ivit"):
            Nonlinear.parse(name)


@settings(deadline=None)
@given(rows, scales)
def test_softmax(x: IntArray, scale: float) -> None:
    """Each family's builder and operator, found by the type of the integers."""
    ours = softmax_params(Nonlinear.VITQ, scale, PROBABILITIES)
    assert isinstance(ours, SoftmaxParams)
    norm = normalize_params(1 / float(PROBABILITIES.scale), SMALLEST_WIDE_SUM, PROBABILITIES)
    assert ours == (shiftmax_params(scale), norm)
    np.testing.assert_array_equal(int_softmax(x, ours), shiftmax(x, shiftmax_params(scale), norm))
    published = softmax_params(Nonlinear.IVIT, scale, PROBABILITIES)
    assert published == IvitSoftmaxParams(round(1 / scale))
    np.testing.assert_array_equal(int_softmax(x, published), ivit_shiftmax(x, published))


@given(hnp.arrays(np.int16, (2, 5), elements=st.integers(-999, 999)), st.sampled_from(Nonlinear))
def test_a_softmax_needs_no_zero_point(x: IntArray, family: Nonlinear) -> None:
    """Only differences count, so that codes need not be centred."""
    p = softmax_params(family, 0.01, PROBABILITIES)
    np.testing.assert_array_equal(int_softmax(x + 77, p), int_softmax(x, p))


def test_softmax_scalars() -> None:
    """Kernels read them by position: the exponent's, then the division's."""
    p = softmax_params(Nonlinear.VITQ, 0.01, PROBABILITIES)
    assert isinstance(p, SoftmaxParams)
    assert p.scalars() == (*p.octaves, *p.norm)
    assert len(p.scalars()) == 7 and p.scalars()[-2:] == (0, 255)
    assert SoftmaxParams.from_scalars(p.scalars()) == p


@settings(deadline=None)
@given(rows, scales, st.integers(-128, 127))
def test_gelu(x: IntArray, scale: float, zero: int) -> None:
    """Likewise."""
    ours = family_gelu_params(Nonlinear.VITQ, scale, zero, OUT)
    assert isinstance(ours, GeluParams) and ours == gelu_params(scale, zero, OUT)
    np.testing.assert_array_equal(int_gelu(x, ours), shiftgelu(x, ours))
    published = family_gelu_params(Nonlinear.IVIT, scale, zero, OUT)
    assert isinstance(published, IvitGeluParams) and published == ivit_gelu_params(scale, zero, OUT)
    np.testing.assert_array_equal(int_gelu(x, published), ivit_shiftgelu(x, published))


def test_twin_ranges() -> None:
    """This project's GELU has them, I-ViT's has not."""
    twin = family_gelu_params(Nonlinear.VITQ, 0.02, 0, TWIN_OUT, TWIN)
    assert isinstance(twin, GeluParams) and twin.is_twin
    with pytest.raises(VitqError, match="nonlinear = ivit has one range: choose nonlinear = vitq"):
        family_gelu_params(Nonlinear.IVIT, 0.02, 0, TWIN_OUT, TWIN)


def test_scales_of_ivit_are_limited() -> None:
    """The other family takes them."""
    with pytest.raises(RangeError, match="choose nonlinear = vitq"):
        softmax_params(Nonlinear.IVIT, 4.0, PROBABILITIES)
    with pytest.raises(RangeError, match="choose nonlinear = vitq"):
        family_gelu_params(Nonlinear.IVIT, 4.0, 0, OUT)
    assert isinstance(softmax_params(Nonlinear.VITQ, 4.0, PROBABILITIES), SoftmaxParams)
