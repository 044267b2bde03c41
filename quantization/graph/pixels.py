"""One picture becomes pixels, as `quantization.graph.preprocessing` says."""

import stat
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.preprocessing import Color, Orientation, Preprocessing

_UNREADABLE = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)


def load_picture(path: Path, prep: Preprocessing) -> UInt8Array:
    """Read, resize and crop one picture.

    Args:
        path: any format that Pillow reads.
        prep: what the model's input means.

    Returns:
        (C, H, W) uint8.

    Raises:
        VitqError: if the picture cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VitqError(f"{path} is no regular file: it cannot be read as a picture")
        with Image.open(path) as opened:
            opened.load()
            return fit_picture(opened, prep, str(path))
    except _UNREADABLE as error:
        raise VitqError(f"{path} cannot be read as a picture: {error}") from error


def fit_picture(
    picture: Image.Image, prep: Preprocessing, source: str = "the picture"
) -> UInt8Array:
    """Resize and crop one picture.

    Args:
        picture: of any size and mode.
        prep: what the model's input means.
        source: what the picture is called in a message.

    Returns:
        (C, H, W) uint8.
    """
    image = picture
    if prep.orientation is Orientation.APPLY:
        image = ImageOps.exif_transpose(image)
    image = image.convert("RGB" if prep.color is Color.BGR else prep.color)
    height, width = prep.resized(image.height, image.width)
    filter_ = Image.Resampling[prep.interpolation.upper()]
    pixels = np.asarray(image.resize((width, height), filter_), np.uint8)
    pixels = pixels.reshape(height, width, -1)
    if prep.color is Color.BGR:
        pixels = pixels[..., ::-1]
    return cropped(pixels, prep)


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
