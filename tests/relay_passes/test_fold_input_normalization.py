import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import MAIN, constant
from vitq.relay_passes.fold_input_normalization import FoldInputNormalization
from vitq.relay_passes.interpreter.interpreter import interpret

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (2, 3, 16, 16)
INPUT = {"image": (SHAPE, "float32")}


def quantized(dtype="int8", zero_point=-14, before=None, readers=1):
    def body(b, x):
        y = before(b, x) if before else x
        result = b.dq(b.q(y, 0.0186, zero_point, dtype), 0.0186, zero_point)
        return [result, *[b(relax.op.exp(y)) for _ in range(readers - 1)]]

    return module(INPUT, body)


def pixels_and_floats():
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    pixels.reshape(-1)[:256] = np.arange(256)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return pixels, (pixels.astype(np.float32) / np.float32(255) - mean) / std


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -14), ("uint8", 114)])
def test_a_table_replaces_the_quantizer(dtype, zero_point):
    before = quantized(dtype, zero_point)
    after = FoldInputNormalization(MEAN, STD)(before)
    assert ops(after) == [names.LUT, "dequantize"]
    assert str(after[MAIN].params[0].ty.dtype) == "uint8"
    pixels, floats = pixels_and_floats()
    np.testing.assert_array_equal(interpret(after, [pixels])[0], interpret(before, [floats])[0])


def test_normalization_inside_the_graph_goes_into_the_table():
    offset = constant(np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1))

    def normalize(b, x):
        x = b(relax.op.subtract(x, offset))
        return b(relax.op.divide(x, constant(np.float32(0.5))))

    before = quantized(before=normalize)
    after = FoldInputNormalization((0.0,) * 3, (1.0,) * 3)(before)
    pixels = pixels_and_floats()[0]
    floats = pixels.astype(np.float32) / np.float32(255)
    assert ops(after) == [names.LUT, "dequantize"]
    np.testing.assert_array_equal(interpret(after, [pixels])[0], interpret(before, [floats])[0])


def test_pixels_that_the_network_normalizes_itself(caplog):
    mean, std = (constant(np.array(v, np.float32).reshape(1, 3, 1, 1)) for v in (MEAN, STD))

    def body(b, x):
        x = b(relax.op.divide(b(relax.op.astype(x, "float32")), constant(np.float32(255))))
        x = b(relax.op.divide(b(relax.op.subtract(x, mean)), std))
        return b.dq(b.q(x, 0.0186, 3, "int8"), 0.0186, 3)

    before = module({"image": (SHAPE, "uint8")}, body)
    after = FoldInputNormalization()(before)
    assert ops(after) == [names.LUT, "dequantize"]
    pixels = pixels_and_floats()[0]
    (found,) = interpret(after, [pixels])
    np.testing.assert_array_equal(found, interpret(before, [pixels])[0])
    own = FoldInputNormalization(MEAN, STD)(quantized("int8", 3))
    np.testing.assert_array_equal(found, interpret(own, [pixels])[0])
    assert not caplog.records
    FoldInputNormalization(MEAN, STD)(before)
    assert "image is uint8 and normalized in the file: mean and std are not used" in caplog.text


def test_missing_mean_and_std_is_an_error():
    with pytest.raises(VitqError, match="image is float32: give the mean and std"):
        FoldInputNormalization()(quantized())


def test_mean_of_another_length_is_an_error():
    with pytest.raises(VitqError, match="3 channels, mean 1 and std 1"):
        FoldInputNormalization((0.5,), (0.5,))(quantized())


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (quantized(readers=2), "2 operators read image"),
        (quantized("int16"), "not 8-bit"),
        (quantized(before=lambda b, x: b(relax.op.exp(x))), "relax.exp reads the float input"),
        (
            quantized(
                before=lambda b, x: b(relax.op.add(x, constant(np.zeros((16, 16), np.float32))))
            ),
            "not one value for each channel",
        ),
    ],
)
def test_refusals(mod, reason):
    assert_declines(FoldInputNormalization(MEAN, STD), mod, reason)


def test_integer_pixels_stay():
    mod = module({"pixels": (SHAPE, "uint8")}, lambda b, x: b.dq(x, 1 / 255))
    assert_declines(FoldInputNormalization(), mod)
