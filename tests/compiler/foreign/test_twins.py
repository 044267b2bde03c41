"""A file that says the same in other words gives the same integers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.compiler.foreign.graphs import (
    CHANNELS,
    MEAN,
    NCHW,
    SIDE,
    STD,
    WIDTH,
    Body,
    plain,
    weights,
)
from vitq.compiler.codegen.importing import ImportedModel, Meaning, import_model
from vitq.relay_passes.interpreter.interpreter import interpret

PIXELS = np.random.default_rng(1).integers(0, 256, (1, CHANNELS, SIDE, SIDE), dtype=np.uint8)
MEANING = Meaning(1, MEAN, STD)


def integers(model: ImportedModel) -> Any:
    """Of the fixed pixels."""
    return interpret(model.integer.mod, [PIXELS])[0]


def imported(path: Path, meaning: Meaning = MEANING) -> Any:
    """The file's integers."""
    return integers(import_model(path, meaning))


SCALES = (np.abs(weights()).reshape(WIDTH, -1).max(1) / 127).astype(np.float32)
W = weights()
STEPS = SCALES.reshape(-1, 1, 1, 1)


def direct(b: Body) -> str:
    return b.quantize(b.const(W), SCALES, [0] * WIDTH, axis=0)


def transposed(b: Body) -> str:
    turned = b.op("Transpose", b.const(np.moveaxis(W, 0, 3)), perm=[3, 0, 1, 2])
    return b.quantize(turned, SCALES, [0] * WIDTH, axis=0)


def reshaped(b: Body) -> str:
    same = b.op("Identity", b.const(W.reshape(WIDTH, -1)))
    return b.quantize(b.op("Reshape", same, b.const(W.shape, "int64")), SCALES, [0] * WIDTH, axis=0)


def cast(b: Body) -> str:
    wide = b.op("Cast", b.const(W.astype(np.float64)), to=TensorProto.FLOAT)
    return b.quantize(wide, SCALES, [0] * WIDTH, axis=0)


def clipped(b: Body) -> str:
    step, zero = b.const(SCALES), b.const([0] * WIDTH, "int8")
    codes = b.op("QuantizeLinear", b.const(W), step, zero, axis=0)
    codes = b.op("Clip", codes, b.const(-127, "int8"), b.const(127, "int8"))
    return b.op("DequantizeLinear", codes, step, zero, axis=0)


@pytest.mark.parametrize("form", [direct, transposed, reshaped, cast, clipped])
def test_float_weights_are_their_codes(form: Callable[[Body], str], tmp_path: Path) -> None:
    def save(name: str, weight: Callable[[Body], str]) -> Path:
        body = Body()
        x = body.patches(body.quantize("x"), weight(body))
        return body.save(tmp_path / name, body.quantize(x, 1 / 16))

    twin = save(
        "twin.onnx",
        lambda b: b.codes(np.rint(W / STEPS).astype(np.int8), SCALES, [0] * WIDTH, axis=0),
    )
    found = imported(save("float.onnx", form))
    np.testing.assert_array_equal(found, imported(twin))
    assert len(np.unique(found)) > 10


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("quantized", [True, False])
def test_a_float_class_token_is_expanded_to_a_dynamic_batch(
    batch: int, quantized: bool, tmp_path: Path
) -> None:
    token = np.random.default_rng(2).normal(size=(1, 1, WIDTH)).astype(np.float32)

    def save(name: str, made: Callable[[Body], str]) -> Path:
        body = Body()
        weight = body.codes(np.rint(W * 64).astype(np.int8))
        x = body.patches(body.quantize("x"), weight)
        y = body.quantize(body.op("Concat", made(body), x, axis=1), 1 / 32)
        pictures = ("x", ["N", CHANNELS, SIDE, SIDE], TensorProto.FLOAT)
        return body.save(tmp_path / name, y, ["N", 5, WIDTH], pictures)

    def expanded(b: Body) -> str:
        size = b.op("Gather", b.op("Shape", "x"), b.const([0], "int64"))
        shape = b.op("Concat", size, b.const([1, WIDTH], "int64"), axis=0)
        y = b.op("Expand", b.const(token), shape)
        return b.quantize(y, 1 / 32) if quantized else y

    def codes(b: Body) -> str:
        return b.codes(np.repeat(np.rint(token * 32).astype(np.int8), batch, 0), 1 / 32)

    meaning = Meaning(batch, MEAN, STD)
    models = [import_model(save(f.__name__, f), meaning) for f in (expanded, codes)]
    pixels = np.concatenate([PIXELS, 255 - PIXELS])[:batch]
    results = [interpret(model.integer.mod, [pixels])[0] for model in models]
    np.testing.assert_array_equal(*results)
    assert results[0].shape == (batch, 5, WIDTH)


def test_initializers_that_are_listed_as_inputs(tmp_path: Path) -> None:
    path = plain(tmp_path / "plain.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        listed = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(listed)
    model.graph.input.reverse()
    onnx.save(model, tmp_path / "old.onnx")
    np.testing.assert_array_equal(imported(tmp_path / "old.onnx"), imported(path))


def normalized(b: Body, x: str) -> str:
    """Pixels to normalized floats, as the outside does it."""
    shape = (1, 3, 1, 1)
    x = b.op("Div", x, b.const(np.float32(255)))
    x = b.op("Sub", x, b.const(np.array(MEAN, np.float32).reshape(shape)))
    return b.op("Div", x, b.const(np.array(STD, np.float32).reshape(shape)))


@pytest.mark.parametrize("kind", ["uint8", "uint8 NHWC", "float NHWC"])
def test_other_inputs(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    body, x = Body(), "x"
    is_last = kind.endswith("NHWC")
    sizes = [1, SIDE, SIDE, CHANNELS] if is_last else NCHW[1]
    element = TensorProto.UINT8 if kind.startswith("uint8") else TensorProto.FLOAT
    if kind.startswith("uint8"):
        x = body.op("Cast", x, to=TensorProto.FLOAT)
    if is_last:
        x = body.op("Transpose", x, perm=[0, 3, 1, 2])
    if kind.startswith("uint8"):
        x = normalized(body, x)
    weight = body.codes(np.rint(W * 64).astype(np.int8))
    y = body.quantize(body.patches(body.quantize(x), weight), 1 / 16)
    path = body.save(tmp_path / "other.onnx", y, pictures=("x", sizes, element))
    meaning = MEANING if kind.startswith("float") else Meaning()
    np.testing.assert_array_equal(imported(path, meaning), imported(plain(tmp_path / "plain.onnx")))
    assert ("the library takes (N, C, H, W)" in caplog.text) == is_last
