"""What a model's input means: from a picture to its uint8 (C, H, W), and from that to real numbers.

    picture -> colours -> resize -> centre crop or pad -> uint8 (C, H, W) -> (x / 255 - mean) / std

Everything before the last arrow is done here and by the runners, bit for bit alike; the last one is
folded into the model. One rule of geometry covers timm, torchvision and transformers. A picture of
``h x w`` is resized to ``h2 x w2``; with ``resize_size = (H', W')``:

    none       h x w
    squash     H' x W'
    shortest   covers H' x W', aspect kept: one side equals, the other follows
    longest    fits inside H' x W', aspect kept
    rounding of the side that follows:
        floor    h2 = h * W' // w                          torchvision, transformers (integers)
        nearest  h2 = round_half_even(h / min(h / H', w / W'))    timm's ResizeKeepRatio (doubles)

Then each axis is cropped to the input, or padded with `fill` where it is smaller. With ``d`` the
difference, the first kept row (negative: rows of padding before the picture) is

    half_even  round_half_even(d / 2), or -(-d // 2) if d < 0     torchvision, timm
    floor      floor(d / 2)                                       transformers
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from vitq.numerics.errors import VitqError


class Color(StrEnum):
    """Order of the channels that a model takes."""

    RGB = "RGB"
    BGR = "BGR"
    L = "L"
    RGBA = "RGBA"


class Orientation(StrEnum):
    """What becomes of a picture's EXIF orientation: pixels as stored, or turned."""

    KEEP = "keep"
    APPLY = "apply"


class Resize(StrEnum):
    """How a picture is fitted to `Preprocessing.resize_size`."""

    SHORTEST = "shortest"
    SQUASH = "squash"
    LONGEST = "longest"
    NONE = "none"


class SideRounding(StrEnum):
    """How the side that follows from the aspect becomes whole."""

    FLOOR = "floor"
    NEAREST = "nearest"


class Interpolation(StrEnum):
    """Pillow's filters."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    NEAREST = "nearest"
    LANCZOS = "lanczos"
    BOX = "box"
    HAMMING = "hamming"


class CropOffset(StrEnum):
    """Where a centre crop begins if it cannot be centred."""

    HALF_EVEN = "half_even"
    FLOOR = "floor"


CHANNELS = {Color.RGB: 3, Color.BGR: 3, Color.L: 1, Color.RGBA: 4}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a model's input means.

    Attributes:
        input_shape: (C, H, W).
        mean: per channel, in [0, 1] units.
        std: likewise.
        color: order of the channels.
        orientation: of pictures with an EXIF orientation.
        resize: how a picture is resized, before the crop.
        resize_size: (H', W') to which.
        rounding: of the side that follows from the aspect.
        interpolation: filter.
        crop_offset: where the crop begins at half a pixel.
        fill: uint8 per channel, around a picture that is smaller than the input.
        assumed: what nobody said of these, in words.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: Color
    orientation: Orientation
    resize: Resize
    resize_size: tuple[int, int]
    rounding: SideRounding
    interpolation: Interpolation
    crop_offset: CropOffset
    fill: tuple[int, ...]
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers of another shape, of no picture, or without a meaning."""
        channels = self.input_shape[0]
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise VitqError(f"an input of {self.input_shape} is no picture: give C, H, W >= 1")
        if len(self.resize_size) != 2 or min(self.resize_size) < 1:
            raise VitqError(f"pictures cannot be resized to {self.resize_size}: give H, W >= 1")
        if CHANNELS[self.color] != channels:
            raise VitqError(
                f"the model takes {channels} channels, and color {self.color} has "
                f"{CHANNELS[self.color]}: choose "
                + (" or ".join(c for c in Color if CHANNELS[c] == channels) or "pixels as .npy")
            )
        for name, values in (("mean", self.mean), ("std", self.std), ("fill", self.fill)):
            if len(values) != channels:
                raise VitqError(f"{len(values)} numbers of {name} for {channels} channels")
        if not all(0 <= value <= 255 for value in self.fill):
            raise VitqError(f"fill {self.fill} is no uint8 colour")
        check_normalization(self.mean, self.std)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return (h2, w2) of a picture of height x width after resizing, see the module."""
        tall, wide = self.resize_size
        if self.resize is Resize.NONE:
            return height, width
        if self.resize is Resize.SQUASH:
            return tall, wide
        covers = self.resize is Resize.SHORTEST
        if self.rounding is SideRounding.NEAREST:
            ratio = (min if covers else max)(height / tall, width / wide)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        width_is_less = width * tall <= height * wide
        if width_is_less == covers or width * tall == height * wide:
            return max(1, height * wide // width), wide
        return tall, max(1, width * tall // height)

    def describe(self) -> str:
        """Return the way from a picture to the input, in words."""
        tall, wide = self.resize_size
        _, height, width = self.input_shape
        size = f"{tall}" if tall == wide else f"{tall} x {wide}"
        how = {
            Resize.SHORTEST: f"short side to {size}"
            if tall == wide
            else f"resized to cover {size}",
            Resize.LONGEST: f"long side to {size}" if tall == wide else f"resized to fit {size}",
            Resize.SQUASH: f"squashed to {tall} x {wide}",
            Resize.NONE: "not resized",
        }[self.resize]
        scaled = "" if self.resize is Resize.NONE else f" ({self.interpolation})"
        exact = self.resize is Resize.SQUASH and self.resize_size == (height, width)
        crop = "" if exact else f", centre {height} x {width}"
        return f"{how}{scaled}{crop}, {self.color}"

    def crop_start(self, size: int, wanted: int) -> int:
        """Return the first kept row or column; below 0 so many are padded before the picture."""
        excess = size - wanted
        if self.crop_offset is CropOffset.FLOOR:
            return excess // 2
        return round(excess / 2) if excess >= 0 else -(-excess // 2)

    def to_json(self) -> dict[str, Any]:
        """All fields, as artifacts and bundles hold them."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Any, source: object) -> Self:
        """Read what `to_json` gave.

        Args:
            content: of a file.
            source: what the file is called.

        Raises:
            VitqError: a field is missing, unknown or of another kind.
        """
        if not isinstance(content, Mapping):
            raise VitqError(f"{source} does not say how pictures become its input: quantize again")
        try:
            numbers = {
                "input_shape": tuple(map(int, content["input_shape"])),
                "mean": tuple(map(float, content["mean"])),
                "std": tuple(map(float, content["std"])),
                "resize_size": tuple(map(int, content["resize_size"])),
                "fill": tuple(map(int, content["fill"])),
                "assumed": tuple(map(str, content["assumed"])),
            }
            words = {name: kind(content[name]) for name, kind in _WORDS.items()}
            return cls(**numbers, **words)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise VitqError(f"{source}: its preprocessing is damaged: {error!r}") from error


_WORDS: dict[str, type[StrEnum]] = {
    "color": Color,
    "orientation": Orientation,
    "resize": Resize,
    "rounding": SideRounding,
    "interpolation": Interpolation,
    "crop_offset": CropOffset,
}
MAX_VALUE = 20.0
"""Of a normalized pixel; ImageNet's reach 2.7."""
MIN_RANGE = 0.1
"""Between the normalized values of pixels 0 and 255."""
RAW_STD = 1 / 255
"""With mean 0: a model that takes 0 to 255 as they are."""


def color_of(channels: int) -> Color:
    """Return the colours that a model of so many channels takes where nobody says.

    Raises:
        VitqError: none has so many.
    """
    found = {1: Color.L, 3: Color.RGB, 4: Color.RGBA}.get(channels)
    if found is None:
        raise VitqError(
            f"the model takes {channels} channels, and pictures have 1, 3 or 4: "
            "give pixels as .npy, uint8 (N, C, H, W)"
        )
    return found


def check_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Refuse a normalization that no model was trained with.

    Args:
        mean: per channel, in [0, 1] units.
        std: likewise.

    Raises:
        VitqError: a number is not finite, std is not positive, or the pixels 0 to 255 become
            values that are far from 0 or all alike; the likely meaning is named.
    """
    if len(mean) != len(std):
        raise VitqError(
            f"{len(mean)} numbers of mean beside {len(std)} of std: give one of each for a channel"
        )
    for center, scale in zip(mean, std, strict=True):
        if not math.isfinite(center) or not (math.isfinite(scale) and scale > 0):
            raise VitqError(f"mean {center:g} and std {scale:g}: give finite numbers, and std > 0")
        low, high = -center / scale, (1 - center) / scale
        if center == 0 and math.isclose(scale, RAW_STD, rel_tol=1e-3):
            continue
        if max(-low, high) <= MAX_VALUE and high - low >= MIN_RANGE and -1 <= center <= 2:
            continue
        small = tuple(round(value / 255, 6) for value in (center, scale))
        hint = "give both for pixels in [0, 1]"
        if center > 2 or scale > 1 / MIN_RANGE:
            hint = f"they are for pixels in [0, 255]: divide both by 255, {small[0]} and {small[1]}"
        raise VitqError(
            f"mean {center:g} and std {scale:g} turn pixels 0 to 255 into {low:.4g} to "
            f"{high:.4g}, which no model expects: {hint}"
        )
