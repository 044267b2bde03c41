"""A float ONNX file through the product: quantized, compiled, verified, evaluated."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import vitq
from tests.compiler.foreign.network.files import legacy
from tests.quantization.vits import vit
from vitq.compiler.stages.identity import used_weights
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.models.digits_vit import IMAGE_SIZE, MEAN, STD
from vitq.numerics.errors import VitqError
from vitq.quantization.model.models import load_model
from vitq.quantization.model.names import folder_name, is_factory, is_onnx

NORMALIZATION: dict[str, Any] = {"mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model as a float file."""
    return legacy(
        load_model("digits_vit").module, tmp_path_factory.mktemp("float") / "digits.onnx", 17
    )


def test_a_file_is_quantized_and_compiled_like_its_module(digits: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    ours = vitq.quantize(digits, pixels, method="minmax", **NORMALIZATION)
    module = vitq.quantize(
        load_model("digits_vit").module,
        pixels,
        method="minmax",
        image_size=IMAGE_SIZE,
        **NORMALIZATION,
    )
    lib = vitq.compile(ours)
    beside = vitq.compile(module)
    np.testing.assert_array_equal(lib.run(pixels, raw=True)[0], beside.run(pixels, raw=True)[0])
    assert lib.verify(pixels)
    labels = np.arange(8)
    rows = [q.evaluate(pixels, labels, backends=["float", "library"]) for q in (lib, beside)]
    for name, row in rows[0].items():
        other = rows[1][name]
        assert (row.top1, row.agreement) == (other.top1, other.agreement)
        assert row.mean_cosine == pytest.approx(other.mean_cosine, abs=1e-5)


def test_a_changed_file_is_another_model(digits: Path, tmp_path: Path) -> None:
    options = QuantizeOptions(model=str(digits))
    assert used_weights(options) == [digits]
    copy = tmp_path / "digits.onnx"
    copy.write_bytes(digits.read_bytes())
    assert folder_name(str(copy)) != folder_name(str(digits))
    assert folder_name(str(copy)).startswith("digits-")


@pytest.mark.parametrize(
    ("name", "onnx_file", "factory"),
    [("a.onnx", True, False), ("C:/x/A.ONNX", True, False), ("a.b:c", False, True)],
)
def test_names_of_files(name: str, onnx_file: bool, factory: bool) -> None:
    assert (is_onnx(name), is_factory(name)) == (onnx_file, factory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": Path("w.pth")}, "has its weights: leave weights and random_weights out"),
        ({"random_weights": 0}, "has its weights: leave weights and random_weights out"),
        ({"num_classes": 3}, "is built: leave num_classes and model_kwargs out"),
    ],
)
def test_what_is_for_models_that_are_built_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VitqError, match=message):
        QuantizeOptions(model="m.onnx", **options)


def test_a_quantized_file_is_sent_to_compile(tmp_path: Path) -> None:
    out = vitq.quantize("digits_vit", count=4, method="minmax").export(tmp_path / "q.onnx")
    with pytest.raises(VitqError, match="holds integers"):
        vitq.quantize(out, np.zeros((4, 3, 32, 32), np.uint8), **NORMALIZATION)


def test_the_meaning_of_the_input_has_to_be_said(digits: Path) -> None:
    with pytest.raises(VitqError, match="--mean"):
        vitq.quantize(digits, np.zeros((4, 3, 32, 32), np.uint8))


def test_a_file_that_fits_no_picture_of_that_size(tmp_path: Path) -> None:
    path = legacy(vit(), tmp_path / "m.onnx", 17)
    pixels = np.zeros((4, 3, 48, 48), np.uint8)
    with pytest.raises(
        VitqError, match="the file is made for pictures of 32 x 32: give --image-size 32"
    ):
        vitq.quantize(path, pixels, image_size=48, **NORMALIZATION)


def test_a_mistake_of_reading_is_found_by_the_file_itself(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitq.compiler.foreign.network.call import OPERATORS

    monkeypatch.setitem(OPERATORS, "Softmax", lambda call: torch.softmax(call.x() * 1.5, -1))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    with pytest.raises(VitqError, match="from what onnxruntime computes"):
        vitq.quantize(digits, pixels, method="minmax", **NORMALIZATION)


def test_the_file_is_not_changed(digits: Path) -> None:
    onnx.checker.check_model(onnx.load(digits))
