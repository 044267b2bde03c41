"""Pictures of every mode and kind: taken as Pillow takes them, or refused; never clipped."""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures import colors
from vitq.quantization.pictures.described import Described, resolve
from vitq.quantization.pictures.pixels import fit_picture, load_picture
from vitq.quantization.pictures.preprocessing import Color, Orientation, Preprocessing, Resize

LOGGER = "vitq.quantization.pictures.colors"


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """What is said once is said in each test."""
    colors._kinds.cache_clear()


def plain(channels: int, size: int = 8) -> Preprocessing:
    """The picture itself, where it has the model's size."""
    described = Described(
        size=(size, size), channels=channels, mean=(0.5,), std=(0.5,), crop_fraction=1.0
    )
    return resolve(described, "model")


def noise(mode: str, size: int = 8) -> Image.Image:
    """A picture of a mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 4), np.uint8)
    return Image.fromarray(pixels).convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_what_pillow_makes_of_them(mode: str, channels: int) -> None:
    picture = noise(mode)
    wanted = np.asarray(picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    found = fit_picture(picture, plain(channels))
    assert np.array_equal(found, wanted.reshape(8, 8, channels).transpose(2, 0, 1))


def test_bgr_is_rgb_reversed() -> None:
    rgb = plain(3)
    bgr = replace(rgb, color=Color.BGR)
    assert np.array_equal(fit_picture(noise("RGB"), bgr), fit_picture(noise("RGB"), rgb)[::-1])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_gray_keeps_its_brightness(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow's own conversion clips: everything above 255 of 65,535 becomes white."""
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    with caplog.at_level(logging.WARNING, LOGGER):
        for _ in range(2):
            found = load_picture(tmp_path / f"x.{suffix}", plain(3))
    assert np.array_equal(found[1], values >> 8)
    assert caplog.text.count("has 16 bits for a channel: the upper 8 are taken") == 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_of_no_known_range_are_refused(dtype: type, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 111, dtype)).save(tmp_path / "x.tif")
    with pytest.raises(VitqError, match=r"x\.tif holds 32-bit numbers.*save it with 8 bits"):
        load_picture(tmp_path / "x.tif", plain(3))


def test_a_mode_that_pillow_does_not_convert_is_refused() -> None:
    with pytest.raises(VitqError, match=r"the picture: .*LAB.*: save it as RGB or gray"):
        fit_picture(Image.new("LAB", (8, 8)), plain(1))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette"])
def test_transparency_is_said(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if kind == "palette":
        noise("P").save(tmp_path / "x.png", transparency=3)
    else:
        noise(kind).save(tmp_path / "x.png")
    with caplog.at_level(logging.WARNING, LOGGER):
        load_picture(tmp_path / "x.png", plain(3))
    assert "x.png has transparent pixels: their colours are taken" in caplog.text


def test_opaque_alpha_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, LOGGER):
        fit_picture(noise("RGB").convert("RGBA"), plain(3))
    assert caplog.text == ""


def test_the_first_frame_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = noise("RGB")
    first.save(tmp_path / "x.png", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    with caplog.at_level(logging.WARNING, LOGGER):
        found = load_picture(tmp_path / "x.png", plain(3))
    assert np.array_equal(found, np.asarray(first).transpose(2, 0, 1))
    assert "holds several frames: the first is taken" in caplog.text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_kept_and_said_or_applied(
    orientation: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture, exif = noise("RGB"), Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "x.png", exif=exif)
    stored = np.asarray(picture).transpose(2, 0, 1)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert np.array_equal(load_picture(tmp_path / "x.png", plain(3)), stored)
    assert ("--orientation apply turns it" in caplog.text) == (orientation > 1)
    turned = load_picture(tmp_path / "x.png", replace(plain(3), orientation=Orientation.APPLY))
    assert np.array_equal(turned, stored) == (orientation == 1)
    assert sorted(turned.ravel()) == sorted(stored.ravel())
    if orientation == 6:  # shown, it is turned by a quarter, clockwise
        assert np.array_equal(turned, np.rot90(stored, -1, (1, 2)))


@pytest.mark.parametrize("resize", [Resize.SHORTEST, Resize.SQUASH])
@pytest.mark.parametrize("size", [(1, 400_000), (400_000, 1)])
def test_a_picture_that_would_grow_without_bound_is_refused_at_once(
    resize: Resize, size: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("L", size).save(tmp_path / "x.png")
    prep = replace(plain(3, 224), resize=resize)
    started = time.monotonic()
    try:
        assert load_picture(tmp_path / "x.png", prep).shape == (3, 224, 224)
        assert resize is Resize.SQUASH
    except VitqError as error:
        assert "resized to" in str(error) and "make it smaller or cut it" in str(error)
    assert time.monotonic() - started < 5


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (12, 12)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 143)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(VitqError, match="12 x 12"):
        load_picture(tmp_path / "x.png", plain(3))


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(VitqError, match="is no regular file"):
        load_picture(path, plain(3))
