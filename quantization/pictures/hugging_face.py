"""What an image processor of transformers says, as its ``to_dict()`` or its JSON file.

The processor resizes, crops (or pads), rescales and normalizes:

    x = ((pixel * rescale_factor - offset) - image_mean) / image_std

In [0, 1] units that is (pixel / 255 - mean) / std with ``mean = (image_mean + offset) / r`` and
``std = image_std / r`` for ``r = 255 * rescale_factor``. Processors that do more have a rule of
their own here, or are refused by name.
"""

import logging
from collections.abc import Mapping
from typing import Any

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.described import Described, filter_of
from vitq.quantization.pictures.preprocessing import Color, CropOffset, Resize, SideRounding

logger = logging.getLogger(__name__)

RESCALE = 1 / 255
SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
BY_SHORT_SIDE = frozenset(
    "bit chineseclip clip convnext levit mobilenetv1 mobilenetv2 mobilevit poolformer videomae "
    "vilt vithybrid".split()
)
"""Kinds that take one number as the short side."""
BY_BOTH_SIDES = frozenset(
    "beit blip deit dpt efficientnet flava glpn pvt segformer swin vit vitmsn".split()
)
"""Kinds that take one number as both sides."""
PLAIN = BY_SHORT_SIDE | BY_BOTH_SIDES | {"siglip", "bridgetower", "convnextv2", "dinov2"}
"""Kinds that resize, crop, rescale and normalize, no more."""
REFUSED = {
    "dinov3vit": "resizes real numbers, not pixels",
    "imagegpt": "makes tokens of colours",
    "owlv2": "pads before it resizes",
    "perceiver": "crops before it resizes",
    "siglip2": "chooses the size by the picture",
    "swin2sr": "keeps the picture's size",
}
"""Kinds that do something else, and what."""
WARPED_FROM = 384
"""ConvNeXt's processor squashes to this size and larger ones, and crops to smaller ones."""


def of_transformers(content: Mapping[str, Any], name: str) -> Described:
    """Return what a processor's dictionary says.

    Args:
        content: of ``to_dict()`` or of preprocessor_config.json.
        name: what it is called in a message.

    Raises:
        VitqError: it does what `Preprocessing` cannot say.
    """
    kind = _kind(content, name)
    if kind in REFUSED:
        raise VitqError(
            f"{name}: a processor of kind {kind} {REFUSED[kind]}, which cannot be said here: give "
            "pixels as .npy, or --image-size, --mean, --std, --resize, ... of your own"
        )
    if kind not in PLAIN:
        logger.warning(
            "%s: a processor of kind %r is not known here: it is read by its fields, as one that "
            "resizes, crops, rescales and normalizes",
            *(name, kind or "none"),
        )
    if content.get("do_pad") and (content.get("pad_size") or content.get("size_divisor")):
        raise VitqError(f"{name}: do_pad pads at the right and below, which cannot be said here")
    if content.get("keep_aspect_ratio"):
        raise VitqError(
            f"{name}: keep_aspect_ratio gives sizes that differ: pass --image-size, ..."
        )
    mean, std = _normalization(content, kind, name)
    geometry = _geometry(content, kind, name)
    color = Color.BGR if content.get("do_flip_channel_order") else None
    return Described(mean=mean, std=std, channels=len(mean), color=color).over(geometry)


def _kind(content: Mapping[str, Any], name: str) -> str:
    """Return the processor's name without what all of them are called."""
    found = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
    for suffix in SUFFIXES:
        found = found.removesuffix(suffix)
    return found.lower()


def _geometry(content: Mapping[str, Any], kind: str, name: str) -> Described:
    """Return size, resize and crop."""
    size = _size(content.get("size"), kind, name)
    crop = None
    if content.get("do_center_crop"):
        crop = _crop(content.get("crop_size"), name)
    if not content.get("do_resize", True):
        return Described(size=crop, resize=Resize.NONE, crop_offset=CropOffset.FLOOR)
    resize, resized = size
    if kind.startswith("convnext") and resize is Resize.SHORTEST:
        crop = resized
    resize, resized = _of_kind(kind, resize, resized, content.get("crop_pct"))
    if crop is None and resize is Resize.SHORTEST:
        raise VitqError(
            f"{name}: its pictures have no fixed size (shortest_edge without a centre crop): "
            "pass --image-size"
        )
    return Described(
        size=crop or resized,
        resize=resize,
        resize_size=resized,
        rounding=SideRounding.FLOOR,
        crop_offset=CropOffset.FLOOR,
        interpolation=filter_of(content.get("resample"), name),
    )


def _of_kind(
    kind: str, resize: Resize, size: tuple[int, int], fraction: Any
) -> tuple[Resize, tuple[int, int]]:
    """Return what a kind of processor makes of its size."""
    side = size[0]
    if kind == "levit" and resize is Resize.SHORTEST:
        return resize, (int(256 / 224 * side),) * 2
    if kind.startswith("convnext") and resize is Resize.SHORTEST:
        if side >= WARPED_FROM:
            return Resize.SQUASH, size
        return resize, (int(side / float(fraction or 224 / 256)),) * 2
    if kind == "poolformer" and fraction:
        enlarged = (int(side / float(fraction)), int(size[1] / float(fraction)))
        return (Resize.SHORTEST if side == size[1] else Resize.SQUASH), enlarged
    return resize, size


def _size(size: Any, kind: str, name: str) -> tuple[Resize, tuple[int, int]]:
    """Return how pictures are resized, and to what."""
    if isinstance(size, Mapping):
        given = {key: int(value) for key, value in size.items() if value is not None}
        if given.keys() == {"height", "width"}:
            return Resize.SQUASH, (given["height"], given["width"])
        if given.keys() == {"shortest_edge"}:
            return Resize.SHORTEST, (given["shortest_edge"],) * 2
        raise VitqError(
            f"{name}: a size of {', '.join(sorted(given)) or 'nothing'} cannot be said here: it "
            "must have height and width, or shortest_edge"
        )
    if isinstance(size, int) and kind in BY_SHORT_SIDE | BY_BOTH_SIDES:
        return (Resize.SHORTEST if kind in BY_SHORT_SIDE else Resize.SQUASH), (size, size)
    raise VitqError(
        f"{name}: its size is {size!r}, which does not say whether the short side or both are "
        "meant: write {'shortest_edge': N} or {'height': H, 'width': W} there"
    )


def _crop(size: Any, name: str) -> tuple[int, int]:
    """Return the size of the crop."""
    if isinstance(size, Mapping) and size.keys() >= {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if isinstance(size, int):
        return size, size
    raise VitqError(f"{name}: do_center_crop without a crop_size of height and width")


def _normalization(
    content: Mapping[str, Any], kind: str, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std in [0, 1] units."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if content.get("do_normalize"):
        mean, std = (_numbers(content.get(key), key, name) for key in ("image_mean", "image_std"))
    channels = max(len(mean), len(std), 3 if not content.get("do_normalize") else 1)
    mean, std = (values * channels if len(values) == 1 else values for values in (mean, std))
    factor = 1.0
    if content.get("do_rescale", True):
        factor = float(content.get("rescale_factor", RESCALE))
    ratio = 1.0 if factor == RESCALE else 255 * factor
    offset = 1.0 if content.get("rescale_offset") else 0.0
    mean = tuple((value + offset) / ratio for value in mean)
    std = tuple(value / ratio for value in std)
    if kind == "efficientnet" and content.get("include_top"):
        scale = _numbers(content.get("image_std"), "image_std", name)
        std = tuple(one * more for one, more in zip(std, scale, strict=True))
    return mean, std


def _numbers(values: Any, key: str, name: str) -> tuple[float, ...]:
    """Return mean or std."""
    if isinstance(values, int | float):
        return (float(values),)
    if values is None:
        raise VitqError(f"{name}: do_normalize without {key}")
    return tuple(map(float, values))
