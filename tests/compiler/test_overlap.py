"""Pictures that made a model are noticed by their content where it is evaluated."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitq
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.overlap import Overlap, marks, seen
from vitq.compiler.support.artifacts import Artifact
from vitq.models.digits_vit.data import calibration_images, eval_images
from vitq.quantization.graph import artifact as storage


def test_a_mark_is_of_the_pixels_alone() -> None:
    pixels = calibration_images(3)
    assert len(set(marks(pixels))) == 3 and marks(pixels[::-1])[::-1] == marks(pixels)
    assert marks(np.asfortranarray(pixels)) == marks(pixels)
    changed = pixels.copy()
    changed[1, 2, 31, 31] ^= 1
    assert [a == b for a, b in zip(marks(changed), marks(pixels), strict=True)] == [1, 0, 1]


def test_made_pictures_have_no_marks() -> None:
    pixels = calibration_images(2)
    assert seen("noise", pixels, pixels[:0]) == {"calibrated": [], "decided": []}
    assert seen(None, pixels, pixels[:1]) == {
        "calibrated": marks(pixels),
        "decided": marks(pixels[:1]),
    }


@pytest.fixture
def told(compiled: Path, artifact: Artifact, tmp_path: Path) -> Path:
    """A library whose artifact says that it saw pictures 0 to 3, and that 4 and 5 decided."""
    own = Path(shutil.copytree(compiled.parent, tmp_path / "artifact"))
    model, (pixels, _) = storage.load(own), eval_images(6)
    model.provenance["seen"] = seen(None, pixels[:4], pixels[4:])
    storage.save(own, model)
    return own / compiled.name


def test_evaluate_says_which_pictures_made_the_model(
    told: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitq")
    evaluate(told, count=20, backends=("library",))
    assert "evaluate: 4 of 20 pictures also calibrated the model: of others" in caplog.text
    assert "2 of 20 pictures also decided about --max-drop, which holds on them" in caplog.text
    caplog.clear()
    pixels, labels = eval_images(30)
    for index in range(6, 30):
        place = tmp_path / "others" / str(labels[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index].transpose(1, 2, 0)).save(place / f"{index}.png")
    evaluate(told, str(tmp_path / "others"), backends=("library",))
    assert "also" not in caplog.text


def test_a_library_without_its_artifact_says_nothing(
    told: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (told.parent / "quantize.json").unlink()
    found = Overlap(open_compiled(told))
    found.add(eval_images(6)[0])
    found.say("here")
    assert caplog.text == ""


def test_one_folder_for_both_is_said_from_python(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitq")
    pixels, labels = eval_images(24)
    for index, picture in enumerate(pixels):
        place = tmp_path / "both" / str(labels[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{index}.png")
    both = str(tmp_path / "both")
    made = vitq.quantize("digits_vit", both, count=8, method="minmax", max_drop=50)
    facts = made.provenance["seen"]
    assert (len(facts["calibrated"]), len(facts["decided"])) == (8, 16)
    assert not set(facts["calibrated"]) & set(facts["decided"])
    caplog.clear()
    library = vitq.compile(made)
    library.evaluate(both, backends=("library",))
    assert f"{both}: 16 of 24 pictures also decided about --max-drop" in caplog.text
    assert "8 of 24 pictures also calibrated the model" in caplog.text
