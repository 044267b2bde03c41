"""The runner's readers against Pillow's: every pixel equal, or refused."""

import contextlib
import io
import json
import random
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tests.compiler.picture_files import chunk, jpeg, picture, png, resampled
from tests.compiler.probes import build_probe
from tests.fuzz.runner_fuzz import mutated, seeds
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.pixels import load_picture
from vitq.quantization.pictures.preprocessing import (
    CHANNELS,
    Color,
    CropOffset,
    Interpolation,
    Orientation,
    Preprocessing,
    Resize,
    SideRounding,
)

Read = Callable[[Preprocessing | None, list[Path]], list[UInt8Array | str]]
SOURCES = ("preprocessing", "image", "decode", "jpeg", "png", "exif", "segments")


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """What the runner makes of pictures: pixels, or its line."""
    program = build_probe(tmp_path_factory, "pixels_probe", SOURCES)
    folder = tmp_path_factory.mktemp("read")

    def call(how: Preprocessing | None, paths: list[Path]) -> list[UInt8Array | str]:
        manifest, out = folder / "manifest.json", folder / "out"
        manifest.write_text(json.dumps({"preprocessing": how and how.to_json()}))
        command = [program, str(manifest) if how else "-", str(out), *map(str, paths)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        data, found = out.read_bytes(), list[UInt8Array | str]()
        for line in lines.splitlines():
            if not line[0].isdigit():
                found.append(line)
                continue
            channels, height, width = map(int, line.split())
            size = channels * height * width
            shape = (channels, height, width) if how else (height, width, channels)
            found.append(np.frombuffer(data[:size], np.uint8).reshape(shape))
            data = data[size:]
        assert data == b"" and len(found) == len(paths)
        return found

    return call


def check_equal(read: Read, how: Preprocessing | None, paths: list[Path]) -> None:
    for path, found in zip(paths, read(how, paths), strict=True):
        with Image.open(path) as opened:
            plain = np.asarray(opened)
        wanted = plain.reshape(*plain.shape[:2], -1) if how is None else load_picture(path, how)
        assert not isinstance(found, str), found
        assert found.shape == wanted.shape, path
        assert np.array_equal(found, wanted), f"{path}: {(found != wanted).sum()} bytes differ"


JPEG_SIZES = ((1, 1), (2, 3), (5, 4), (16, 16), (17, 33), (61, 100), (129, 70))


@pytest.mark.parametrize("quality", [30, 60, 90, 100])
def test_jpeg(read: Read, tmp_path: Path, quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 1 << 20)  # Pillow's own writing of small noise
    paths = []
    for size, subsampling, progressive in product(JPEG_SIZES, (0, 1, 2), (False, True)):
        for channels in (1, 3):
            path = tmp_path / f"{size}_{subsampling}_{progressive}_{channels}.jpg"
            image = picture(*size, channels, seed=subsampling, noise=quality)
            options = {"subsampling": subsampling, "progressive": progressive}
            path.write_bytes(jpeg(image, quality=quality, **options))
            paths.append(path)
    check_equal(read, None, paths)


@pytest.mark.parametrize("progressive", [False, True])
def test_rare_sampling(read: Read, tmp_path: Path, progressive: bool) -> None:
    half = jpeg(picture(48, 64, 3), subsampling=1, progressive=progressive)
    quarter = jpeg(picture(48, 64, 3), subsampling=2, progressive=progressive)
    contents = {
        "440": resampled(half, 0x12, 64, 48),
        "440_odd": resampled(half, 0x12, 61, 43),
        "411": resampled(quarter, 0x41, 24, 128),
        "411_odd": resampled(quarter, 0x41, 23, 119),
        "114_odd": resampled(quarter, 0x14, 93, 31),
    }
    paths = [tmp_path / f"{name}.jpg" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    check_equal(read, None, paths)


def how_of(color: Color, **changes: object) -> Preprocessing:
    channels = CHANNELS[color]
    usual: dict[str, object] = {
        "input_shape": (channels, 9, 7),
        "mean": (0.5,) * channels,
        "std": (0.5,) * channels,
        "color": color,
        "orientation": Orientation.KEEP,
        "resize": Resize.NONE,
        "resize_size": (8, 8),
        "rounding": SideRounding.FLOOR,
        "interpolation": Interpolation.BICUBIC,
        "crop_offset": CropOffset.FLOOR,
        "fill": (3, 5, 7, 9)[:channels],
    }
    return Preprocessing(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("color", list(Color))
def test_colors_of_jpeg(read: Read, tmp_path: Path, color: Color) -> None:
    rgb = jpeg(picture(20, 30, 3), keep_rgb=True)
    cmyk = jpeg(picture(20, 30, 4).convert("RGB").convert("CMYK"), quality=95)
    adobe = b"Adobe\0\x64\0\0\0\0"
    contents = {"rgb": rgb, "cmyk": cmyk, "ycck": cmyk.replace(adobe + b"\0", adobe + b"\2")}
    assert contents["ycck"] != cmyk and b"JFIF" not in rgb
    paths = [tmp_path / f"{name}.jpg" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    check_equal(read, how_of(color), paths)


PNG_KINDS = [
    (color, channels, depth)
    for color, channels, depths in (
        *((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8))),
        *((4, 2, (8, 16)), (6, 4, (8, 16))),
    )
    for depth in depths
]


@pytest.mark.parametrize("color", list(Color))
def test_png(read: Read, tmp_path: Path, color: Color) -> None:
    draws = np.random.default_rng(0)
    palette = draws.integers(0, 256, 3 * 256, np.uint8).tobytes()
    paths = []
    for kind, channels, depth in PNG_KINDS:
        values = draws.integers(0, 1 << depth, (11, 13, channels))
        extra = chunk(b"PLTE", palette[: 3 << depth]) if kind == 3 else b""
        variants = {"plain": extra}
        if kind == 3:
            variants["alpha"] = extra + chunk(b"tRNS", bytes(range(1 << (depth - 1))))
            variants["short"] = chunk(b"PLTE", palette[: 3 << (depth - 1)])
        elif channels % 2 and (depth == 8 or color is not Color.RGBA):
            variants["key"] = chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())
        for name, ahead in variants.items():
            paths.append(tmp_path / f"{kind}_{depth}_{name}.png")
            paths[-1].write_bytes(png(values, depth, kind, ahead))
    for channels in (1, 2, 3, 4):  # Pillow's, with all filters of rows
        paths.append(tmp_path / f"filters_{channels}.png")
        picture(40, 30, channels).save(paths[-1])
    check_equal(read, how_of(color), paths)


def test_gray_of_16_bits_keeps_its_upper_8(read: Read, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (11, 13, 1))
    path = tmp_path / "x.png"
    path.write_bytes(png(values, 16, 0))
    (found,) = read(None, [path])
    assert np.array_equal(found, values >> 8)


def test_a_transparent_colour_of_other_depths_is_refused(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    values = np.full((3, 3, 1), 2)
    path.write_bytes(png(values, 2, 0, chunk(b"tRNS", b"\0\2")))
    (found,) = read(how_of(Color.RGBA), [path])
    assert "alpha channel" in found
    check_equal(read, how_of(Color.RGB), [path])


def spoiled(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    flipped = bytearray(content)
    flipped[middle] ^= 1
    return {"half": content[:middle], "head": content[:30], "flip": bytes(flipped)}


def test_damage_is_refused(read: Read, tmp_path: Path) -> None:
    image = picture(60, 80, 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    cut = {f"{name}.png": content for name, content in spoiled(file.getvalue()).items()}
    plain, progressive = jpeg(image), jpeg(image, progressive=True)
    for name, content in (("plain", plain), ("progressive", progressive)):
        cut |= {f"{name}_end.jpg": content[:-1], f"{name}_half.jpg": content[: len(content) // 2]}
    cut["scans.jpg"] = progressive[: progressive.rindex(b"\xff\xda")] + b"\xff\xd9"
    many = progressive[: progressive.index(b"\xff\xda")]
    cut["many.jpg"] = many + 300 * b"\xff\xda\0\x08\1\1\0\0\0\0" + b"\xff\xd9"
    paths = [tmp_path / name for name in cut]
    for path, content in zip(paths, cut.values(), strict=True):
        path.write_bytes(content)
    for path, found in zip(paths, read(None, paths), strict=True):
        assert isinstance(found, str), path
        assert str(path) in found and "\n" not in found


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_png_is_refused_or_as_in_pillow(read: Read, tmp_path: Path) -> None:
    known = [content for _, content in seeds() if content[1:4] == b"PNG"]
    source = random.Random(7)
    paths = [tmp_path / f"{i}.png" for i in range(200)]
    for path in paths:
        path.write_bytes(mutated(source.choice(known), source))
    compared = 0
    for path, found in zip(paths, read(how_of(Color.RGB), paths), strict=True):
        if isinstance(found, str):
            continue
        with contextlib.suppress(VitqError):
            assert np.array_equal(found, load_picture(path, how_of(Color.RGB))), path
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("code", range(10))
def test_orientation(read: Read, tmp_path: Path, code: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = code
    image = picture(23, 40, 3)
    paths = [tmp_path / name for name in ("x.png", "x.jpg", "xmp.jpg")]
    image.save(paths[0], exif=exif)
    image.save(paths[1], exif=exif)
    xmp = f'<x tiff:Orientation="{code}"/>'.encode()
    image.save(paths[2], xmp=xmp)
    for orientation in Orientation:
        check_equal(read, how_of(Color.RGB, orientation=orientation), paths)


numbers = st.integers(1, 40)
hows = st.sampled_from(Color).flatmap(
    lambda color: st.builds(
        Preprocessing,
        input_shape=st.tuples(st.just(CHANNELS[color]), numbers, numbers),
        mean=st.just((0.5,) * CHANNELS[color]),
        std=st.just((0.5,) * CHANNELS[color]),
        color=st.just(color),
        orientation=st.sampled_from(Orientation),
        resize=st.sampled_from(Resize),
        resize_size=st.tuples(numbers, numbers),
        rounding=st.sampled_from(SideRounding),
        interpolation=st.sampled_from(Interpolation),
        crop_offset=st.sampled_from(CropOffset),
        fill=st.tuples(*[st.integers(0, 255)] * CHANNELS[color]),
    )
)


@settings(max_examples=300, deadline=None)
@given(how=hows, height=st.integers(1, 90), width=st.integers(1, 90), data=st.data())
def test_every_preprocessing(
    read: Read,
    tmp_path_factory: pytest.TempPathFactory,
    how: Preprocessing,
    height: int,
    width: int,
    data: st.DataObject,
) -> None:
    """Bit for bit the Python side, over all its fields."""
    path = tmp_path_factory.getbasetemp() / "any.png"
    channels, seed = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 99))
    picture(height, width, channels, seed, noise=120).save(path)
    check_equal(read, how, [path])


@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_large_pictures(read: Read, tmp_path: Path, interpolation: Interpolation) -> None:
    """Long rows are made in parts: more columns than weights are kept at once."""
    path = tmp_path / "x.png"
    picture(3, 30_000, 3).save(path)
    for size in ((2, 25_000), (40, 9)):
        shape = (3, *size)
        how = how_of(
            *(Color.RGB,),
            **{"input_shape": shape, "resize_size": size, "resize": Resize.SQUASH},
            interpolation=interpolation,
        )
        check_equal(read, how, [path])


def test_too_large_to_resize(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (1, 60_000)).save(path)
    how = how_of(Color.L, resize=Resize.SHORTEST, resize_size=(60, 60))
    (found,) = read(how, [path])
    assert "would be resized to 60 x 3600000" in found and "cut it first" in found


def test_real_pictures(read: Read, real_data: Path) -> None:
    paths = sorted((real_data / "imagenet300").glob("*/*.[jJ][pP]*"))[::6]
    assert len(paths) == 50
    check_equal(read, None, paths)
