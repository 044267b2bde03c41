"""Quantization parameters; quantize and dequantize against ONNX Runtime."""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import (
    PerAxis,
    PerTensor,
    QScheme,
    QuantParams,
    bounds,
    dequantize,
    quantize,
)

TYPES = {
    "int8": (TensorProto.INT8, -128, 127),
    "uint8": (TensorProto.UINT8, 0, 255),
    "int16": (TensorProto.INT16, -(2**15), 2**15 - 1),
}


@lru_cache
def onnx_session(operator: str, name: str, axis: int) -> onnxruntime.InferenceSession:
    """A model with one QuantizeLinear or DequantizeLinear of any shape."""
    code_type = TYPES[name][0]
    sides = {"x": TensorProto.FLOAT, "y": code_type}
    if operator == "DequantizeLinear":
        sides = {"x": code_type, "y": TensorProto.FLOAT}
    inputs = [
        helper.make_tensor_value_info("x", sides["x"], None),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("zero_point", code_type, None),
    ]
    node = helper.make_node(operator, ["x", "scale", "zero_point"], ["y"], axis=axis)
    outputs = [helper.make_tensor_value_info("y", sides["y"], None)]
    graph = helper.make_graph([node], "one", inputs, outputs)
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_onnx(operator: str, name: str, x: Any, qparams: QuantParams) -> Any:
    """What ONNX Runtime says."""
    axis = qparams.granularity.axis if isinstance(qparams.granularity, PerAxis) else 0
    feed = {"x": x, "scale": qparams.scale, "zero_point": qparams.zero_point.astype(name)}
    return onnx_session(operator, name, axis).run(None, feed)[0]


def per_tensor(scale: float, zero_point: int, qmin: int, qmax: int) -> QuantParams:
    """One scale for all."""
    return QuantParams.per_tensor(scale, zero_point, qmin, qmax)


@pytest.mark.parametrize("name", TYPES)
@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(2.0**-20, 2.0**10, width=32),
    st.data(),
)
def test_quantize_is_onnx(name: str, x: FloatArray, scale: float, data: st.DataObject) -> None:
    """Per tensor, any zero point, saturation included; and back."""
    _, qmin, qmax = TYPES[name]
    qparams = per_tensor(scale, data.draw(st.integers(qmin, qmax)), qmin, qmax)
    codes = quantize(x, qparams)
    assert codes.dtype == np.dtype(name)
    np.testing.assert_array_equal(codes, run_onnx("QuantizeLinear", name, x, qparams))
    restored = dequantize(codes, qparams)
    assert restored.dtype == np.float32
    np.testing.assert_array_equal(restored, run_onnx("DequantizeLinear", name, codes, qparams))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("offset", [0, 3])
def test_quantize_ties_are_onnx(name: str, scale: float, offset: int) -> None:
    """k + 0.5 over the whole range and beyond its ends: half to even before the zero point."""
    _, qmin, qmax = TYPES[name]
    qparams = per_tensor(scale, qmin + offset, qmin, qmax)
    x = ((np.arange(qmin - 300, qmax + 300) + 0.5) * scale).astype(np.float32)
    codes = quantize(x, qparams)
    np.testing.assert_array_equal(codes, run_onnx("QuantizeLinear", name, x, qparams))
    steps = [round(Fraction(float(value)) / Fraction(scale)) for value in x[::97]]
    expected = [min(max(step + qmin + offset, qmin), qmax) for step in steps]
    assert codes[::97].tolist() == expected


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_per_axis_is_onnx(name: str, axis: int) -> None:
    """A scale and a zero point for each channel, along any axis."""
    rng = np.random.default_rng(axis)
    x = rng.normal(0, 40, (3, 4, 5)).astype(np.float32)
    _, qmin, qmax = TYPES[name]
    channels = x.shape[axis]
    scale = np.array(rng.uniform(0.01, 2, channels), np.float32)
    zero_point = np.array(rng.integers(max(qmin, -100), 100, channels))
    qparams = QuantParams(scale, zero_point, qmin, qmax, PerAxis(axis))
    codes = quantize(x, qparams)
    np.testing.assert_array_equal(codes, run_onnx("QuantizeLinear", name, x, qparams))
    np.testing.assert_array_equal(
        dequantize(codes, qparams), run_onnx("DequantizeLinear", name, codes, qparams)
    )


def test_quantize_saturates_far_values() -> None:
    """Quotients far beyond int64 still end at the bounds."""
    qparams = per_tensor(1e-10, 0, -128, 127)
    assert quantize(np.array([1e28, -1e28, 0.0]), qparams).tolist() == [127, -128, 0]
    moved = per_tensor(1e-10, -5, -128, 127)  # nor does the zero point wrap them
    assert quantize(np.array([1e28, -1e28, 0.0]), moved).tolist() == [127, -128, -5]


def test_quantize_to_a_narrow_range() -> None:
    """The bounds of the parameters clamp, not the storage type."""
    codes = quantize(np.array([-100.0, -7.5, 7.4, 100.0]), per_tensor(1.0, 0, -8, 7))
    assert codes.dtype == np.int8
    assert codes.tolist() == [-8, -8, 7, 7]


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, (5,), elements=st.floats(-100, 100, width=32)),
    st.floats(2.0**-10, 8, width=32),
    st.integers(-128, 127),
)
def test_round_trip(x: FloatArray, scale: float, zero_point: int) -> None:
    """Half a step between the bounds; codes are fixed points."""
    qparams = per_tensor(scale, zero_point, -128, 127)
    codes: IntArray = quantize(x, qparams)
    restored = dequantize(codes, qparams)
    inside = (codes > -128) & (codes < 127)
    assert np.all(np.abs(restored - x)[inside] <= scale * (0.5 + 1e-4))
    np.testing.assert_array_equal(quantize(restored, qparams), codes)


@pytest.mark.parametrize(
    ("scale", "zero_point", "low", "high", "granularity", "message"),
    [
        (0.0, 0, -8, 7, PerTensor(), "not a positive finite number"),
        (-1.0, 0, -8, 7, PerTensor(), "not a positive finite number"),
        (np.nan, 0, -8, 7, PerTensor(), "not a positive finite number"),
        (np.inf, 0, -8, 7, PerTensor(), "not a positive finite number"),
        (1e-50, 0, -8, 7, PerTensor(), "not a positive finite number"),  # 0 in float32
        (1.0, 8, -8, 7, PerTensor(), r"zero point is outside of \[qmin, qmax\]"),
        (1.0, -9, -8, 7, PerTensor(), r"zero point is outside of \[qmin, qmax\]"),
        (1.0, 0, 7, 7, PerTensor(), "qmin 7 is not below qmax 7"),
        ([1.0], [0], -8, 7, PerTensor(), r"scale of shape \(1,\) does not fit PerTensor"),
        (1.0, 0, -8, 7, PerAxis(0), r"scale of shape \(\) does not fit PerAxis"),
        ([[1.0]], [[0]], -8, 7, PerAxis(0), r"scale of shape \(1, 1\) does not fit"),
        ([1.0, 1.0], [0], -8, 7, PerAxis(0), r"scale \(2,\) and zero point \(1,\) differ"),
        ([1.0, -1.0], [0, 0], -8, 7, PerAxis(0), "not a positive finite number"),
        ([1.0, 1.0], [0, 9], -8, 7, PerAxis(0), "zero point is outside"),
        ([[1.0]], [[0]], -8, 7, PerTensor(), r"scale of shape \(1, 1\) does not fit PerTensor"),
        ([1.0, 1.0], [0, -9], -8, 7, PerAxis(0), "zero point is outside"),
        ([np.inf, 1.0], [0, 0], -8, 7, PerAxis(0), "not a positive finite number"),
    ],
)
def test_refused(
    scale: Any, zero_point: Any, low: int, high: int, granularity: Any, message: str
) -> None:
    """Every way in which parameters are none."""
    with np.errstate(under="ignore"), pytest.raises(VitqError, match=message):
        QuantParams(np.array(scale), np.array(zero_point), low, high, granularity)


@pytest.mark.parametrize("zero_point", [-8, 7])
def test_a_zero_point_at_a_bound(zero_point: int) -> None:
    assert per_tensor(1.0, zero_point, -8, 7).zero_point == zero_point


def test_negative_axis_is_refused() -> None:
    """The rank is not known where the parameters are made."""
    with pytest.raises(VitqError, match="axis -1 is negative: normalize it"):
        PerAxis(-1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-8, 7, "int8"),
        (-128, 127, "int8"),
        (0, 127, "int8"),
        (0, 128, "uint8"),
        (0, 255, "uint8"),
        (-1, 255, "int16"),
        (-(2**15), 2**15 - 1, "int16"),
        (0, 2**16 - 1, "uint16"),
        (-1, 2**16 - 1, "int32"),
    ],
)
def test_storage_type(low: int, high: int, expected: str) -> None:
    """The narrowest type that holds the bounds."""
    assert per_tensor(1.0, 0, low, high).dtype == np.dtype(expected)


def test_no_storage_type() -> None:
    """Wider than int32 is an error."""
    qparams = per_tensor(1.0, 0, 0, 2**32)
    with pytest.raises(VitqError, match="no integer type up to 32 bits"):
        _ = qparams.dtype


def test_normalized_types() -> None:
    """float32 and int32, whatever came in."""
    qparams = QuantParams(np.array(0.1), np.array(3), 0, 255)
    assert (qparams.scale.dtype, qparams.zero_point.dtype) == (np.float32, np.int32)
    assert isinstance(qparams.granularity, PerTensor)


def test_moved_codes_mean_the_same() -> None:
    moved = per_tensor(0.5, -3, -8, 7).moved(10)
    assert (float(moved.scale), int(moved.zero_point), moved.qmin, moved.qmax) == (0.5, 7, 2, 17)
    axis = QuantParams(np.array([1.0, 2.0]), np.array([0, 3]), -8, 7, PerAxis(1)).moved(-1)
    assert axis.zero_point.tolist() == [-1, 2] and axis.granularity == PerAxis(1)


def test_along() -> None:
    """The shape that broadcasts along the axis."""
    qparams = QuantParams(np.ones(3), np.zeros(3), -8, 7, PerAxis(1))
    assert [a.shape for a in qparams.along(4)] == [(1, 3, 1, 1)] * 2
    assert [a.shape for a in per_tensor(1.0, 0, -8, 7).along(4)] == [()] * 2


@pytest.mark.parametrize("bits", range(2, 17))
def test_bounds(bits: int) -> None:
    """Two's complement, from zero, and narrow."""
    assert bounds(bits, signed=True) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert bounds(bits, signed=True, narrow=True) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert bounds(bits, signed=False) == (0, 2**bits - 1)


@pytest.mark.parametrize("bits", [-1, 0, 1, 17, 32])
def test_unsupported_bits(bits: int) -> None:
    """The message says which widths there are."""
    with pytest.raises(VitqError, match=f"{bits} bits are not supported: choose 2 to 16"):
        bounds(bits, signed=True)


def test_schemes() -> None:
    """The spelling that recipes and metadata carry."""
    assert [str(scheme) for scheme in QScheme] == ["symmetric", "affine"]
