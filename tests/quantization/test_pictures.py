"""Pictures from folders, tables, arrays and the embedded digits."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitq.models.digits_vit.data import calibration_images, eval_images
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.described import standard
from vitq.quantization.pictures.pictures import load_pictures, picture_files
from vitq.quantization.pictures.pixels import load_picture
from vitq.quantization.pictures.raw_pixels import read_pixels

SHAPE = (3, 28, 28)
HALF = (0.5, 0.5, 0.5)
PREP = replace(standard(SHAPE, HALF, HALF), assumed=())
DIGITS = standard((3, 32, 32), HALF, HALF)
LARGE = standard((3, 224, 224), HALF, HALF)


def paint(
    path: Path, value: int = 100, size: tuple[int, int] = (32, 32), mode: str = "RGB"
) -> Path:
    """A picture of one gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (value, value, value) if mode == "RGB" else value
    Image.new(mode, size, color).save(path)
    return path


def load(source: Path | str, limit: int | None = None) -> tuple[list[int], list[int] | None]:
    """(gray of each picture, labels)."""
    pictures = load_pictures(str(source), PREP, limit, "evaluation")
    assert pictures.pixels.shape == (len(pictures), *SHAPE) and pictures.pixels.dtype == np.uint8
    assert pictures.source == str(source)
    labels = None if pictures.labels is None else pictures.labels.tolist()
    return [int(p[0, 14, 14]) for p in pictures.pixels], labels


def flat(folder: Path) -> Path:
    """Three pictures and something else."""
    for name, value in (("b.png", 20), ("a.PNG", 10), ("c.bmp", 30)):
        paint(folder / name, value)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_flat_folder_is_sorted_and_has_no_labels(tmp_path: Path) -> None:
    assert load(flat(tmp_path)) == ([10, 20, 30], None)


def test_limit_takes_evenly_spaced_ones(tmp_path: Path) -> None:
    for index in range(10):
        paint(tmp_path / f"{index}.png", 10 * index)
    assert load(tmp_path, 3) == ([0, 30, 60], None)
    assert load(tmp_path, 10) == load(tmp_path) == ([*range(0, 100, 10)], None)


def test_fewer_than_asked_for_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vitq.quantization.pictures.pictures"):
        assert load(flat(tmp_path), 5)[0] == [10, 20, 30]
    assert "holds 3 pictures, 5 were asked for" in caplog.text


@pytest.mark.parametrize("heading", ["", "file,label,name\n", "\ufefffile,label\n"])
def test_labels_file_decides_order_and_labels(heading: str, tmp_path: Path) -> None:
    table = flat(tmp_path) / "labels.csv"
    table.write_text(f"{heading}c.bmp,7,cat\n\na.PNG, 999 ,dog\n", encoding="utf-8")
    assert load(tmp_path) == ([30, 10], [7, 999])
    assert load(tmp_path, 1) == ([30], [7])


@pytest.mark.parametrize("content", ["a.PNG\n", "a.PNG,1\nb.png,dog\n", "a.PNG,1\nb.png\n"])
def test_a_damaged_labels_file(content: str, tmp_path: Path) -> None:
    table = flat(tmp_path) / "labels.csv"
    table.write_text(content)
    with pytest.raises(VitqError, match="each line needs a file name and a class number"):
        load(tmp_path)


def test_a_labels_file_of_another_encoding(tmp_path: Path) -> None:
    (flat(tmp_path) / "labels.csv").write_bytes(b"a\xff\xfe.png,1\n")
    with pytest.raises(VitqError, match=r"labels\.csv"):
        load(tmp_path)


def test_a_labels_file_that_names_what_does_not_exist(tmp_path: Path) -> None:
    (flat(tmp_path) / "labels.csv").write_text("a.PNG,1\nnone.png,2\n")
    with pytest.raises(VitqError, match=r"none\.png"):
        load(tmp_path)
    with pytest.raises(VitqError, match=r"names none\.png, which does not exist"):
        picture_files(str(tmp_path), None)
    assert load(tmp_path, 1) == ([10], [1])


def test_class_folders_give_labels_in_their_order(tmp_path: Path) -> None:
    paint(tmp_path / "zebra" / "1.png", 30)
    paint(tmp_path / "ape" / "2.jpeg", 20)
    paint(tmp_path / "ape" / "1.png", 10)
    (tmp_path / "ape" / "readme.md").write_text("")
    assert load(tmp_path) == ([10, 20, 30], [0, 0, 1])


def test_picture_files_are_those_that_are_read(tmp_path: Path) -> None:
    flat(tmp_path)
    assert [p.name for p in picture_files(str(tmp_path), 2)] == ["a.PNG", "b.png"]
    table = tmp_path / "labels.csv"
    table.write_text("c.bmp,7\n")
    assert picture_files(str(tmp_path), None) == [tmp_path / "c.bmp", table]
    array = tmp_path / "x.npy"
    array.write_bytes(b"")
    assert picture_files(str(array), None) == [array]
    with pytest.raises(VitqError, match="no such folder"):
        picture_files(str(tmp_path / "none"), None)


def test_empty_and_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"holds no pictures \(looked for .*\.png"):
        load(tmp_path)
    with pytest.raises(VitqError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(VitqError, match=r"none\.npy cannot be read as an \.npy array: No such"):
        load(tmp_path / "none.npy")
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(VitqError, match="holds no pictures"):
        load(tmp_path)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one(limit: int, tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="give at least 1"):
        load(flat(tmp_path), limit)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6])
def test_corrupt_pictures_are_named(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(VitqError, match=rf"picture\.{suffix} cannot be read as a picture"):
        load(tmp_path)


def test_a_text_file_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(VitqError, match=r"a\.png cannot be read as a picture"):
        load(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(VitqError, match="cannot be read as a picture"):
        load_picture(paint(tmp_path / "a.png"), PREP)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode).save(path)
    np.testing.assert_array_equal(load_picture(path, PREP), 255)


def gradient(width: int, height: int) -> UInt8Array:
    """Red counts columns, green rows."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width) % 256
    picture[..., 1] = (np.arange(height) % 256)[:, None]
    return picture


@pytest.mark.parametrize("size", [(256, 256), (341, 256), (256, 300)])
def test_a_picture_of_the_right_short_side_is_only_cropped(
    size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    Image.fromarray(gradient(width, height)).save(tmp_path / "a.png")
    left, top = (width - 224) // 2, (height - 224) // 2
    expected = gradient(width, height)[top : top + 224, left : left + 224].transpose(2, 0, 1)
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png", LARGE), expected)


@pytest.mark.parametrize("size", [(512, 640), (100, 90), (1, 1), (2000, 30)])
def test_other_sizes_are_resized_first(size: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(gradient(*size)).save(tmp_path / "a.png")
    pixels = load_picture(tmp_path / "a.png", LARGE)
    assert pixels.shape == (3, 224, 224)
    if size == (512, 640):
        small = Image.fromarray(gradient(*size)).resize((256, 320), Image.Resampling.BICUBIC)
        expected = np.asarray(small)[48:272, 16:240].transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, expected)


def test_npy(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (4, *SHAPE)).astype(np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.npy", SHAPE), pixels)
    found = load_pictures(str(tmp_path / "a.npy"), PREP, 3, "calibration")
    np.testing.assert_array_equal(found.pixels, pixels[:3])
    assert found.labels is None
    np.save(tmp_path / "one.npy", pixels[1])
    np.testing.assert_array_equal(read_pixels(tmp_path / "one.npy", SHAPE), pixels[1:2])
    np.save(tmp_path / "f.npy", np.asfortranarray(pixels))
    assert read_pixels(tmp_path / "f.npy", SHAPE).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 28, 28, 3), np.uint8),
            r"shape \(2, 28, 28, 3\): the model takes N x 3x28x28",
        ),
        (np.zeros((2, 3, 32, 32), np.uint8), "the model takes N x 3x28x28"),
        (np.zeros(5, np.uint8), "the model takes"),
        (np.zeros((2, *SHAPE), np.float32), "is float32: the model takes raw pixels, uint8"),
        (np.zeros((2, *SHAPE), np.int8), "is int8"),
        (np.zeros((0, *SHAPE), np.uint8), r"a\.npy is an array of 0 pictures: give at least"),
    ],
)
def test_npy_of_another_kind(array: UInt8Array, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VitqError, match=message):
        read_pixels(tmp_path / "a.npy", SHAPE)


def test_npy_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    objects = path.read_bytes()
    np.save(path, np.zeros((2, *SHAPE), np.uint8))
    whole = path.read_bytes()
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    archive = (tmp_path / "b.npz").read_bytes()
    for content in (objects, whole[:-5], whole[:40], b"", b"hello", archive):
        path.write_bytes(content)
        with pytest.raises(
            VitqError, match=r"a\.npy (cannot be read as an \.npy|holds object|is shorter)"
        ):
            read_pixels(path, SHAPE)


def test_digits() -> None:
    calibration = load_pictures("digits", DIGITS, 5, "calibration")
    np.testing.assert_array_equal(calibration.pixels, calibration_images(5))
    assert calibration.labels is None
    evaluation = load_pictures("digits", DIGITS, None, "evaluation")
    np.testing.assert_array_equal(evaluation.labels, eval_images().labels)
    assert len(evaluation) == 360 and evaluation.pixels.flags.writeable


@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_more_digits_than_there_are(split: str) -> None:
    with pytest.raises(VitqError, match="cannot take 5000"):
        load_pictures("digits", DIGITS, 5000, split)


def test_digits_do_not_fit_another_model() -> None:
    with pytest.raises(VitqError, match=r"do not fit an input of \(3, 224, 224\)"):
        load_pictures("digits", LARGE, 4, "calibration")
