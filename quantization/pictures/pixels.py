"""One picture becomes pixels, as `quantization.pictures.preprocessing` says."""

import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.colors import colored
from vitq.quantization.pictures.described import standard
from vitq.quantization.pictures.preprocessing import Color, Orientation, Preprocessing


def load_picture(path: Path, prep: Preprocessing | tuple[int, int, int]) -> UInt8Array:
    """Read, resize and crop one picture.

    Args:
        path: any format that Pillow reads.
        prep: what the model's input means; a shape (C, H, W) alone stands for what is usual.

    Returns:
        (C, H, W) uint8.

    Raises:
        VitqError: if the picture cannot be read, or is of a kind that cannot be taken.
    """
    if isinstance(prep, tuple):
        prep = standard(prep, (0.5,) * prep[0], (0.5,) * prep[0])
    with _reading(str(path)):
        if not stat.S_ISREG(path.stat().st_mode):
            raise VitqError(f"{path} is no regular file: give pictures as files")
        opened = Image.open(path)
    with opened:
        return fit_picture(opened, prep, str(path))


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Refuse a picture in one line, whatever Pillow's readers run into in its bytes.

    Raises:
        VitqError: it cannot be read.
    """
    try:
        yield
    except VitqError:
        raise
    except Exception as error:
        said = error if str(error) else type(error).__name__
        raise VitqError(f"{source} cannot be read as a picture: {said}") from error


def fit_picture(
    picture: Image.Image, prep: Preprocessing, source: str = "the picture"
) -> UInt8Array:
    """Resize and crop one picture.

    Args:
        picture: of any size; of a mode that `quantization.pictures.colors` takes.
        prep: what the model's input means.
        source: what the picture is called in a message.

    Returns:
        (C, H, W) uint8.

    Raises:
        VitqError: it cannot be read to its end, is too large, or of another mode.
    """
    _require_size(picture.size, picture.size, source)
    if prep.orientation is Orientation.KEEP:
        _resized(picture, prep, source)  # refuse before decoding
    with _reading(source):
        picture.load()
        image = colored(picture, prep, source)
        height, width = _resized(image, prep, source)
        filter_ = Image.Resampling[prep.interpolation.upper()]
        pixels = np.asarray(image.resize((width, height), filter_), np.uint8)
    pixels = pixels.reshape(height, width, -1)
    if prep.color is Color.BGR:
        pixels = pixels[..., ::-1]
    return cropped(pixels, prep)


def _resized(picture: Image.Image, prep: Preprocessing, source: str) -> tuple[int, int]:
    """Return (h2, w2) of a picture, which must not be too large."""
    height, width = prep.resized(picture.height, picture.width)
    _require_size(picture.size, (width, height), source)
    return height, width


def _require_size(size: tuple[int, int], resized: tuple[int, int], source: str) -> None:
    """Refuse a picture that would need too much memory, before it needs it."""
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    largest = max(size[0] * size[1], resized[0] * resized[1], resized[0] * size[1])
    if largest > limit:
        become = "" if size == resized else f", resized to {resized[0]} x {resized[1]}"
        raise VitqError(
            f"{source} cannot be read as a picture: it is {size[0]} x {size[1]}{become}, and more "
            f"than {limit} pixels are not taken: make it smaller or cut it"
        )


def cropped(pixels: UInt8Array, prep: Preprocessing) -> UInt8Array:
    """Crop or pad (h, w, C) around the centre; returns (C, H, W), contiguous."""
    channels, height, width = prep.input_shape
    top, left = prep.crop_start(len(pixels), height), prep.crop_start(pixels.shape[1], width)
    kept = pixels[max(top, 0) :, max(left, 0) :][: height + min(top, 0), : width + min(left, 0)]
    if kept.shape[:2] != (height, width):
        canvas = np.empty((height, width, channels), np.uint8)
        canvas[:] = prep.fill
        above, before = max(-top, 0), max(-left, 0)
        canvas[above : above + len(kept), before : before + kept.shape[1]] = kept
        kept = canvas
    result: UInt8Array = np.ascontiguousarray(kept.transpose(2, 0, 1))
    return result
