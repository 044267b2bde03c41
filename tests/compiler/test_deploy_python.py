"""A static bundle from Python, with nothing but NumPy: the same integers, or one line."""

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.compiler.bundles import rewrite_manifest
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.bundle import Bundle
from vitq.compiler.stages.run import classify
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.pictures.pixels import fit_picture, load_picture
from vitq.quantization.pictures.preprocessing import Orientation


@pytest.fixture
def bundle(bundles: dict[str, Bundle]) -> Path:
    """A static one."""
    return bundles["static"].folder


def module_of(bundle: Path) -> ModuleType:
    """The bundle's own file, imported."""
    spec = importlib.util.spec_from_file_location("vitq_model", bundle / "python/vitq_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_integers_are_the_librarys(
    bundle: Path, compiled: Path, digits_pixels: UInt8Array
) -> None:
    model = module_of(bundle).Model()
    opened = open_compiled(compiled)
    codes = model(digits_pixels)
    np.testing.assert_array_equal(codes, opened.reference()(digits_pixels))
    np.testing.assert_array_equal(model.logits(codes), opened.logits(codes))
    assert model.verify() > 0 and model.input_shape == (3, 32, 32) and model.classes == 10
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model, [digits_pixels] * 8):
            np.testing.assert_array_equal(found, codes)
    model.close()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pictures_of_any_size_are_prepared_as_for_calibration(
    bundle: Path, compiled: Path, mode: str
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (61, 90, 4), np.uint8)
    picture = Image.fromarray(pixels, "RGBA").convert(mode)
    prep = open_compiled(compiled).preprocessing
    model = module_of(bundle).Model(bundle)
    np.testing.assert_array_equal(model.prepare(np.asarray(picture)), fit_picture(picture, prep))


def test_classes_are_those_of_run(bundle: Path, compiled: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (answer,) = classify(compiled, [tmp_path / "x.png"], top=3)
    best = module_of(bundle).Model(bundle).classify(pixels, top=3)
    assert [(g.number, g.name) for g in best] == [(g.number, g.name) for g in answer.best]
    np.testing.assert_allclose(
        [(g.logit, g.probability) for g in best],
        [(g.logit, g.probability) for g in answer.best], rtol=1e-5,
    )  # fmt: skip


def test_as_a_program(
    bundle: Path, compiled: Path, tmp_path: Path, digits_pixels: UInt8Array
) -> None:
    Image.fromarray(digits_pixels[0].transpose(1, 2, 0)).save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", digits_pixels[:2])
    command = [sys.executable, "-I", str(bundle / "python" / "vitq_model.py")]

    def said(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert said() == (0, said()[1], "") and "golden integers compared, 0 differ" in said()[1]
    code, out, _ = said(str(tmp_path / "x.png"), str(tmp_path / "x.npy"))
    assert code == 0 and [line.count("%") for line in out.splitlines()] == [5, 5, 5]
    code, out, _ = said("--json", str(tmp_path / "x.png"), str(tmp_path / "x.npy"))
    answers = json.loads(out)["answers"]
    names = [str(tmp_path / name) for name in ("x.png", "x.npy[0]", "x.npy[1]")]
    assert code == 0 and [answer["picture"] for answer in answers] == names
    ran = [answer.to_json() for answer in classify(compiled, [tmp_path / "x.npy"])]
    assert ran[0].keys() == answers[1].keys()
    for mine, other in zip(ran, answers[1:], strict=True):
        assert mine["classes"][0].keys() == other["classes"][0].keys()
        numbers = [[guess["class"] for guess in one["classes"]] for one in (mine, other)]
        assert numbers[0] == numbers[1]
    assert json.loads(said("--json")[1])["different"] == 0
    code, out, error = said(str(tmp_path / "nowhere.png"))
    assert (code, out) == (2, "") and error.count("\n") == 1 and "nowhere.png" in error
    code, out, error = said(str(tmp_path))
    assert (code, out) == (2, "") and error.endswith(
        f"{tmp_path} is a folder: name its pictures, such as {tmp_path}/*.png\n"
    )


def test_mistakes_are_one_line(bundle: Path, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    module = module_of(bundle)
    model = module.Model(bundle)
    for pixels in (np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 3, 32, 32), np.float32),
                   np.zeros((0, 3, 32, 32), np.uint8)):  # fmt: skip
        with pytest.raises(module.ModelError, match="the model takes uint8 N x 3 x 32 x 32"):
            model(pixels)
    for picture in (np.zeros((5, 5, 2), np.uint8), np.zeros((5, 5), np.float32)):
        with pytest.raises(module.ModelError, match="a picture is uint8"):
            model.prepare(picture)
    for call in (model, model.prepare, model.results, model.best):
        with pytest.raises(module.ModelError, match="list is no array: give NumPy's, of uint8"):
            call([[1, 2], [3, 4]])
    for codes in (np.zeros((2, 9), np.int32), np.zeros((2, 10)), np.zeros(10, np.int32)):
        for call in (model.results, model.logits):
            with pytest.raises(module.ModelError, match="of a call are int32 N x 10"):
                call(codes)
    with pytest.raises(module.ModelError, match="of a call are int32 N x 10"):
        model.best(np.zeros((1, 10), np.int32))
    with pytest.raises(module.ModelError, match="no bundle"):
        module.Model(tmp_path)
    with pytest.raises(module.ModelError, match="flavour vm"):
        module.Model(bundles["vm"].folder)
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with (copy / "model.so").open("ab") as file:
        file.write(b"x")
    with pytest.raises(module.ModelError, match="is not the file that was deployed"):
        module.Model(copy)
    rewrite_manifest(copy, lambda manifest: manifest.update(architecture="riscv64"))
    with pytest.raises(module.ModelError, match="is for riscv64"):
        module.Model(copy)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_files_are_read_as_for_calibration(
    bundle: Path, compiled: Path, tmp_path: Path, orientation: Orientation
) -> None:
    module = module_of(bundle)
    model = module.Model(bundle)
    model.orientation = str(orientation)
    prep = replace(open_compiled(compiled).preprocessing, orientation=orientation)
    random, exif = np.random.default_rng(7), Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(random.integers(0, 2**16, (50, 40), np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(random.integers(0, 2**16, (50, 40), np.uint16)).save(tmp_path / "16.pgm")
    turned.convert("RGBA").save(tmp_path / "alpha.png")
    turned.convert("P").save(tmp_path / "palette.png")
    turned.convert("CMYK").save(tmp_path / "cmyk.tif")
    for path in sorted(tmp_path.iterdir()):
        prepared = model.prepare(module.read_picture(path, model))
        np.testing.assert_array_equal(prepared, load_picture(path, prep), err_msg=path.name)
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(module.ModelError, match="has 32 bits for a channel"):
        module.read_picture(tmp_path / "f.tif", model)
