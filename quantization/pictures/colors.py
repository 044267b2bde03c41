"""A picture of any mode gets the channels that a model takes: as Pillow does, or it is refused.

    1 L P RGB CMYK YCbCr HSV    Pillow's ``convert``
    LA RGBA PA, P with alpha    likewise: the colours as they are stored, alpha is dropped
    I;16, 16-bit gray of PGM    the upper 8 bits, as Pillow takes them of 16-bit RGB
    I F                         refused: their values have no range that is known

What changes a picture's look is said once for each kind, with the first picture of it.
"""

import functools
import logging

import numpy as np
from PIL import Image, ImageOps

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.preprocessing import Color, Orientation, Preprocessing

logger = logging.getLogger(__name__)

ORIENTATION = 0x0112
"""Of EXIF."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def colored(picture: Image.Image, prep: Preprocessing, source: str) -> Image.Image:
    """Turn a picture as its EXIF orientation says, if that is wanted, and convert its mode.

    Args:
        picture: of any mode.
        prep: what the model takes.
        source: what the picture is called.

    Returns:
        Of mode L, RGB or RGBA.

    Raises:
        VitqError: a mode that Pillow does not convert, or only by clipping.
    """
    _say_frames(picture, source)
    image = _turned(picture, prep.orientation, source)
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and picture.format == "PPM"):
        _say("has 16 bits for a channel: the upper 8 are taken", source)
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise VitqError(
            f"{source} holds 32-bit numbers (Pillow's mode {image.mode}), whose range is not "
            "known: save it with 8 bits for a channel"
        )
    mode = "RGB" if prep.color is Color.BGR else prep.color.value
    if mode != "RGBA":
        _say_transparency(image, source)
    try:
        return image.convert(mode)
    except ValueError as error:
        raise VitqError(f"{source}: {error}: save it as RGB or gray") from error


def _turned(image: Image.Image, orientation: Orientation, source: str) -> Image.Image:
    """Apply the EXIF orientation, or say that there is one."""
    if orientation is Orientation.APPLY:
        return ImageOps.exif_transpose(image)
    found = image.getexif().get(ORIENTATION, 1)
    if found in range(2, 9):
        _say(
            f"is stored turned (EXIF orientation {found}) and taken as it is stored, as timm, "
            "torchvision and transformers do: --orientation apply turns it",
            source,
        )
    return image


def _say_frames(picture: Image.Image, source: str) -> None:
    if getattr(picture, "is_animated", False):
        _say("holds several frames: the first is taken", source)


def _say_transparency(image: Image.Image, source: str) -> None:
    if image.mode in ("LA", "RGBA", "PA"):
        lowest, _ = image.getchannel("A").getextrema()
        if lowest == 255:
            return
    elif "transparency" not in image.info:
        return
    _say("has transparent pixels: their colours are taken as they are stored", source)


def _say(what: str, source: str) -> None:
    """Warn of what is done to a picture: of each kind once."""
    if _is_new(what):
        logger.warning("WARNING: %s %s (more pictures may be like that)", source, what)


@functools.cache
def _kinds() -> set[str]:
    return set()


def _is_new(what: str) -> bool:
    """Whether that was not said yet."""
    kinds = _kinds()
    if what in kinds:
        return False
    kinds.add(what)
    return True
