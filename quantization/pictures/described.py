"""What somebody says of a model's input, as far as they say it, and the whole that follows.

    options of the user  over  a processor's file  over  the model's own configuration

Each says some fields; the first one that says a field decides it. What nobody says is taken as timm
takes it and listed in `Preprocessing.assumed`, which is said where pictures are resized.
"""

import dataclasses
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.preprocessing import (
    CHANNELS,
    Color,
    CropOffset,
    Interpolation,
    Orientation,
    Preprocessing,
    Resize,
    SideRounding,
    color_of,
)

logger = logging.getLogger(__name__)

CROP_FRACTION = 0.875
"""timm's own where a configuration says nothing: the side of the crop by the resized picture's."""
PILLOW_FILTERS = (
    Interpolation.NEAREST,
    Interpolation.LANCZOS,
    Interpolation.BILINEAR,
    Interpolation.BICUBIC,
    Interpolation.BOX,
    Interpolation.HAMMING,
)
"""By Pillow's numbers."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """Fields of a `Preprocessing`; None where nothing is said.

    Attributes:
        size: (H, W) of the input.
        channels: of the input.
        mean: per channel, or one number for all, in [0, 1] units.
        std: likewise.
        color: see `Preprocessing`, as what follows.
        orientation: likewise.
        resize: likewise.
        resize_size: likewise; excludes `crop_fraction`.
        crop_fraction: side of the input by the side of the resized picture.
        rounding: likewise.
        interpolation: likewise.
        crop_offset: likewise.
        fill: likewise.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: Color | None = None
    orientation: Orientation | None = None
    resize: Resize | None = None
    resize_size: tuple[int, int] | None = None
    crop_fraction: float | None = None
    rounding: SideRounding | None = None
    interpolation: Interpolation | None = None
    crop_offset: CropOffset | None = None
    fill: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse sizes and fractions of no picture."""
        if self.size is not None and min(self.size) < 1:
            raise VitqError(f"image size {_times(self.size)}: give at least 1")
        fraction = self.crop_fraction
        if fraction is not None and not 0.05 <= fraction <= 10:
            raise VitqError(
                f"crop fraction {fraction:g}: give the part of the resized picture's side that is "
                "seen, such as 0.875, or 1"
            )

    def over(self, other: "Described") -> "Described":
        """Return these fields, and the other's where nothing is said here."""
        taken = replace(other, **dict(said(self)))
        if self.crop_fraction is not None and self.resize_size is None:
            return replace(taken, resize_size=None)
        if self.resize_size is not None:
            return replace(taken, crop_fraction=None)
        if self.size is not None and other.size is not None and other.resize_size is not None:
            (height, width), (tall, wide) = self.size, other.resize_size
            scaled = (height * tall // other.size[0], width * wide // other.size[1])
            return replace(taken, resize_size=scaled)
        return taken


def said(described: Described) -> Iterator[tuple[str, Any]]:
    """Return the fields that are said, and what."""
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        if value is not None:
            yield field.name, value


def resolve(found: Described, name: str) -> Preprocessing:
    """Return the whole.

    Args:
        found: of all who say something.
        name: of the model, for messages.

    Raises:
        VitqError: size, mean or std are missing, or fields do not go together.
    """
    if found.size is None or found.mean is None or found.std is None:
        raise VitqError(
            f"model {name!r} does not say what its input is: pass --image-size, --mean and --std "
            "(in Python image_size, mean and std), or --preprocessor FILE"
        )
    numbers = {len(found.mean), len(found.std)}
    if len(numbers) == 2 and 1 not in numbers:
        raise VitqError(
            f"model {name!r}: its mean has {len(found.mean)} numbers and its std {len(found.std)}: "
            "give one of each for a channel (--mean, --std, or in the processor's file)"
        )
    channels = found.channels or (3 if found.color is None else CHANNELS[found.color])
    if found.channels is None and found.color is None and len(found.mean) > 1:
        channels = len(found.mean)
    mean, std = (_each(values, channels, name) for values in (found.mean, found.std))
    resize = found.resize or Resize.SHORTEST
    resized = found.resize_size or _enlarged(found.size, found.crop_fraction or CROP_FRACTION)
    timms = found.rounding is None and (resize is Resize.LONGEST or resized[0] != resized[1])
    fill = (0,) * channels
    if resize is Resize.LONGEST:
        fill = tuple(round(255 * min(max(value, 0.0), 1.0)) for value in mean)
    return Preprocessing(
        input_shape=(channels, *found.size),
        mean=mean,
        std=std,
        color=found.color or color_of(channels),
        orientation=found.orientation or Orientation.KEEP,
        resize=resize,
        resize_size=resized,
        rounding=found.rounding or (SideRounding.NEAREST if timms else SideRounding.FLOOR),
        interpolation=found.interpolation or Interpolation.BICUBIC,
        crop_offset=found.crop_offset or CropOffset.HALF_EVEN,
        fill=found.fill or fill,
        assumed=tuple(_assumed(found)),
    )


def filter_of(value: Any, name: str) -> Interpolation | None:
    """Return a filter by its name, by Pillow's number, or of an enum of either; None for None.

    Raises:
        VitqError: it is none of Pillow's.
    """
    value = getattr(value, "value", value)
    if value is None or value == "random":
        return None
    if isinstance(value, int) and 0 <= value < len(PILLOW_FILTERS):
        return PILLOW_FILTERS[value]
    word = str(value).removesuffix("-exact")
    if word not in tuple(Interpolation):
        raise VitqError(f"{name}: filter {value!r} is none of {', '.join(Interpolation)}")
    return Interpolation(word)


def say_assumed(prep: Preprocessing, source: str) -> None:
    """Warn where pictures are resized in a way that nobody said."""
    if prep.assumed:
        logger.warning(
            "WARNING: %s: nobody says how pictures become the input; assumed: %s, so: %s "
            "(--crop-fraction, --resize, --interpolation, --preprocessor FILE say it)",
            *(source, ", ".join(prep.assumed), prep.describe()),
        )


def standard(
    input_shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """Return what is usual for an input, all else assumed."""
    channels, height, width = input_shape
    return resolve(Described(size=(height, width), channels=channels, mean=mean, std=std), "model")


def _assumed(found: Described) -> Iterator[str]:
    """Return what nobody says and pictures depend on, in words."""
    if found.resize is None:
        yield "the shortest side is resized"
    if found.resize_size is None and found.crop_fraction is None and found.resize != Resize.NONE:
        yield f"crop fraction {CROP_FRACTION}"
    if found.interpolation is None and found.resize is not Resize.NONE:
        yield "bicubic"


def _each(values: tuple[float, ...], channels: int, name: str) -> tuple[float, ...]:
    """Return one number for each channel."""
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise VitqError(
            f"model {name!r} takes {channels} channels, and its mean or std has {len(values)} "
            f"numbers: pass --mean and --std of {channels}"
        )
    return values


def _enlarged(size: tuple[int, int], fraction: float) -> tuple[int, int]:
    """Return the size before a crop, as timm computes it."""
    return max(1, math.floor(size[0] / fraction)), max(1, math.floor(size[1] / fraction))


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
