"""Depthwise convolution against `numerics`: every primitive, borders, odd channels, extremes."""

import numpy as np
import pytest

from tests.compiler.kernels.util import FEATURES, random_codes, run_op
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.numerics.convolution import Geometry, int_depthwise, tap_rows
from vitq.numerics.linear import linear_params, linear_sum
from vitq.numerics.qparams import QuantParams
from vitq.relay_passes.dialect import names

PLACES = {
    "padded": Geometry((3, 3), (1, 1), (1, 1), (1, 1)),
    "strided": Geometry((3, 2), (2, 2), (1, 0), (0, 1), (1, 2)),
}


@pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
@pytest.mark.parametrize(("dtype", "zero", "place"), [("uint8", 255, "padded"),
                                                      ("int8", -3, "strided")])  # fmt: skip
def test_depthwise(dtype: str, zero: int, place: str, features: CpuFeatures) -> None:
    """One picture of random codes, one of the code that is farthest from the zero point."""
    rng, channels, size = np.random.default_rng(zero + 9), 37, (5, 4)
    x = random_codes(rng, dtype, (2, size[0] * size[1], channels))
    x[1] = np.iinfo(dtype).min
    taps = tap_rows(size, PLACES[place])
    weight = rng.integers(-128, 128, (channels, taps.shape[1]))
    weight[:5] = -128
    bias = rng.integers(-5000, 5000, channels)
    out = QuantParams(np.float32(0.9), np.int32(3), -128, 127)
    layer = linear_params(linear_sum(weight, rng.uniform(0.001, 0.02, channels), bias, 0.3, 0), out)
    *arrays, bounds = layer.operands()
    operands = [x, taps, *arrays, np.array([zero, *bounds], np.int64)]
    found = run_op(
        names.DEPTHWISE, operands, TensorType((2, len(taps), channels), "int8"), features
    )
    np.testing.assert_array_equal(found, int_depthwise(x, taps, layer, zero))
