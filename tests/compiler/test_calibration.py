"""Calibration pictures without data: made once, kept, saved for people."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitq.compiler.stages import calibration
from vitq.compiler.stages.quantize import chosen_method, prepare, quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.models.digits_vit.data import calibration_images
from vitq.numerics.errors import VitqError
from vitq.quantization.datafree.sources import SOURCES
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.plan.methods import DAMPING_MADE, get_method
from vitq.quantization.plan.recipe import Recipe


@pytest.fixture
def options(tmp_path: Path) -> QuantizeOptions:
    return QuantizeOptions(
        calib="psaq", calib_count=3, calib_steps=2, artifacts=tmp_path, save_images=None
    )


def kept(options: QuantizeOptions) -> list[Path]:
    return sorted((options.artifacts / "digits_vit" / "calibration").glob("*.npy"))


def test_every_source_has_a_name_here() -> None:
    assert tuple(SOURCES) == calibration.GENERATED


def test_pictures_are_made_once(options: QuantizeOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(options)[2]
    assert made.pixels.shape == (3, 3, 32, 32) and made.source == "psaq, seed 0"
    facts = json.loads(kept(options)[0].with_suffix(".json").read_text())
    assert (facts["source"], facts["count"], facts["seed"], facts["steps"]) == ("psaq", 3, 0, 2)

    def again(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(calibration, "_generate", again)
    assert np.array_equal(prepare(options)[2].pixels, made.pixels)
    # The recipe and the method have no part in psaq, only in psaq2.
    other = dataclasses.replace(options, recipe=Recipe.parse("w4a8"), method=get_method("minmax"))
    assert np.array_equal(prepare(other)[2].pixels, made.pixels)
    assert len(kept(options)) == 1
    for change in ({"calib_seed": 1}, {"calib_steps": 3}, {"calib_count": 2}, {"calib": "psaq2"},
                   {"random_weights": 0}):  # fmt: skip
        with pytest.raises(AssertionError, match="made again"):
            prepare(dataclasses.replace(options, **change))


def test_a_half_written_store_is_made_again(options: QuantizeOptions) -> None:
    made = prepare(options)[2].pixels
    (array,) = kept(options)
    array.with_suffix(".json").unlink()
    np.save(array, np.zeros_like(made))
    assert np.array_equal(prepare(options)[2].pixels, made)


def test_quantize_with_pictures_made_from_the_model(options: QuantizeOptions) -> None:
    artifact = quantize(options)
    content = json.loads((artifact.folder / "quantize.json").read_text())
    assert content["provenance"]["calibration"] == {"source": "psaq, seed 0", "pictures": 3}


def test_images_and_contact_sheet(options: QuantizeOptions, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shown = dataclasses.replace(options, calib="noise", calib_count=10, save_images=folder)
    pixels = prepare(shown)[2].pixels
    files = sorted(folder.glob("0*.png"))
    assert [file.name for file in files] == [f"{i:04d}.png" for i in range(10)]
    for file, expected in zip(files, pixels, strict=True):
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image).transpose(2, 0, 1), expected)
    with Image.open(folder / calibration.SHEET_NAME) as image:
        sheet = np.asarray(image)
    assert sheet.shape == (2 * 96 + 2, 8 * 96 + 7 * 2, 3)  # each pixel three times as large
    assert np.array_equal(sheet[98:194:3, 98:194:3].transpose(2, 0, 1), pixels[9])


def test_images_are_saved_although_nothing_changed(
    options: QuantizeOptions, tmp_path: Path
) -> None:
    quantize(options)
    quantize(dataclasses.replace(options, save_images=tmp_path / "images"))
    assert (tmp_path / "images" / calibration.SHEET_NAME).is_file()


def test_made_pictures_take_more_damping(options: QuantizeOptions) -> None:
    assert options.calib in calibration.GENERATED
    real = dataclasses.replace(options, calib="pictures/")
    assert chosen_method(options) == dataclasses.replace(chosen_method(real), damping=DAMPING_MADE)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(VitqError, match="calibration steps is 0"):
        QuantizeOptions(calib_steps=0)
    with pytest.raises(VitqError, match="calibration seed is -1"):
        QuantizeOptions(calib_seed=-1)


def test_calibration_pictures_of_classes_that_the_model_lacks_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.array(calibration_images(4))
    for largest in (9, 10):
        given = GivenPictures(images, np.array([0, 1, 2, largest]))
        caplog.clear()
        prepare(QuantizeOptions(calib=given, artifacts=tmp_path))
        said = "a calibration picture has label 10, but the model has 10 outputs" in caplog.text
        assert said == (largest == 10)
