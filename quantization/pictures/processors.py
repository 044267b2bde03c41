"""What others' configurations say of a model's input: timm's, transformers', torchvision's.

Objects are read by their shape, so that none of the three needs to be there:

    timm           pretrained_cfg or data_config  {"input_size": ..., "crop_pct": ..., ...}
    transformers   an image processor (``to_dict()``), or preprocessor_config.json
    torchvision    a weights' ``transforms()``, or a Compose of Resize, CenterCrop, Normalize, ...
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitq.numerics.errors import VitqError
from vitq.numerics.files import read_object
from vitq.quantization.pictures.described import Described, filter_of
from vitq.quantization.pictures.preprocessing import (
    Color,
    CropOffset,
    Interpolation,
    Orientation,
    Resize,
    SideRounding,
)

FILES = ("preprocessor_config.json", "config.json")
"""In a model's folder, as transformers and timm write them."""
WORDS: dict[str, Callable[[Any], Any]] = {
    "crop_fraction": float,
    "resize": Resize,
    "interpolation": Interpolation,
    "color": Color,
    "orientation": Orientation,
}
"""Fields of `Described` by their own names, of a mapping in hand."""
TIMM_MODES = {"center": Resize.SHORTEST, "squash": Resize.SQUASH, "border": Resize.LONGEST}


def described(source: Any, name: str) -> Described:
    """Return what a configuration says.

    Args:
        source: a mapping, an object with ``to_dict()``, a torchvision transform, or a weights enum.
        name: what it is called in a message.

    Raises:
        VitqError: it is something else, or does what `Preprocessing` cannot say.
    """
    if isinstance(source, Described):
        return source
    if hasattr(source, "to_dict"):
        source = source.to_dict()
    try:
        if isinstance(source, Mapping):
            return _of_mapping(dict(source), name)
        if hasattr(source, "transforms") and not isinstance(source.transforms, Sequence):
            source = source.transforms()  # of an entry of a weights enum
        if hasattr(source, "crop_size") and hasattr(source, "resize_size"):
            return _of_preset(source)
        if isinstance(getattr(source, "transforms", None), Sequence):
            return _of_compose(source.transforms, name)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise VitqError(f"{name} cannot be read as an image processor: {error!r}") from error
    raise VitqError(
        f"{name} is a {type(source).__name__}: give a Hugging Face image processor, a "
        "preprocessor_config.json, timm's data config, or torchvision's transforms"
    )


def read_processor(path: Path) -> Described:
    """Read what a file says; of a folder, the file in it.

    Raises:
        VitqError: there is none, or it says something else.
    """
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise VitqError(f"{path} holds no {' or '.join(FILES)}: give the file")
        path = found
    if not path.is_file():
        raise VitqError(f"--preprocessor {path}: no processor lies there: give {FILES[0]}")
    content = read_object(path, f"--preprocessor {path}", f"give {FILES[0]}")
    return described(content, str(path))


def beside(weights: Path) -> Path | None:
    """Return the configuration that lies beside a file of weights, if it says something."""
    for name in FILES:
        path = weights.parent / name
        if path.is_file() and (name == FILES[0] or b'"pretrained_cfg"' in path.read_bytes()):
            return path
    return None


def _of_mapping(content: dict[str, Any], name: str) -> Described:
    """Return what timm's or transformers' dictionary says."""
    for key in ("data_config", "pretrained_cfg"):
        if isinstance(content.get(key), Mapping):
            return of_timm(content[key], name)
    if content and content.keys() <= WORDS.keys():
        return Described(**{key: WORDS[key](value) for key, value in content.items()})
    if "input_size" in content:
        return of_timm(content, name)
    if not {"size", "image_mean", "do_resize", "do_normalize"} & content.keys():
        raise VitqError(
            f"{name} says nothing of pictures (no size, image_mean, do_resize, input_size): give "
            "preprocessor_config.json"
        )
    from vitq.quantization.pictures.hugging_face import of_transformers

    return of_transformers(content, name)


def of_timm(config: Mapping[str, Any], name: str) -> Described:
    """Return what a ``pretrained_cfg`` says, as timm's ``resolve_data_config`` reads it."""
    mode = config.get("crop_mode") or "center"
    if mode not in TIMM_MODES:
        raise VitqError(f"{name}: crop_mode {mode!r} is unknown: choose {', '.join(TIMM_MODES)}")
    shape = config.get("input_size")
    fraction = config.get("crop_pct")
    return Described(
        size=None if shape is None else (int(shape[1]), int(shape[2])),
        channels=None if shape is None else int(shape[0]),
        mean=_numbers(config.get("mean")),
        std=_numbers(config.get("std")),
        resize=TIMM_MODES[mode] if config.get("crop_mode") or fraction else None,
        crop_fraction=float(fraction) if fraction else None,
        interpolation=filter_of(config.get("interpolation") or None, name),
    )


def _of_preset(preset: Any) -> Described:
    """Return what torchvision's ``ImageClassification`` says."""
    crop, resized = _pair(preset.crop_size), _pair(preset.resize_size)
    return Described(
        size=crop,
        channels=len(preset.mean),
        mean=_numbers(preset.mean),
        std=_numbers(preset.std),
        resize=Resize.SHORTEST if len(_sides(preset.resize_size)) == 1 else Resize.SQUASH,
        resize_size=resized,
        rounding=SideRounding.FLOOR,
        interpolation=filter_of(preset.interpolation, "torchvision's transforms"),
    )


def _of_compose(steps: Sequence[Any], name: str) -> Described:
    """Return what a chain of torchvision's or timm's transforms says."""
    found = Described()
    for step in steps:
        kind = type(step).__name__
        if kind in ("Resize", "ResizeKeepRatio") and found.resize is None and found.size is None:
            found = _resize_step(step, kind, name).over(found)
        elif kind in ("CenterCrop", "CenterCropOrPad") and found.size is None:
            fill = getattr(step, "fill", None)
            colour = tuple(map(int, fill)) if isinstance(fill, Sequence) else None
            found = Described(size=_pair(step.size), fill=colour).over(found)
        elif kind == "Normalize":
            mean, std = (_numbers([float(v) for v in values]) for values in (step.mean, step.std))
            found = Described(mean=mean, std=std).over(found)
        elif kind not in _HARMLESS:
            raise VitqError(
                f"{name} has a {kind} that cannot be said here: give Resize, CenterCrop, Normalize "
                "and conversions to a tensor, or give the options one by one"
            )
    if found.size is None and found.resize is Resize.SQUASH:
        found = Described(size=found.resize_size).over(found)
    return Described(resize=Resize.NONE).over(found) if found.resize is None else found


_HARMLESS = frozenset(
    "ToTensor PILToTensor MaybeToTensor MaybePILToTensor ToImage ToDtype ConvertImageDtype "
    "RGB".split()
)


def _resize_step(step: Any, kind: str, name: str) -> Described:
    """Return what one resizing transform says."""
    if getattr(step, "max_size", None) is not None:
        raise VitqError(f"{name}: a Resize with max_size cannot be said here")
    resize, rounding = Resize.SHORTEST, SideRounding.FLOOR
    if kind == "ResizeKeepRatio":
        rounding = SideRounding.NEAREST
        if step.longest not in (0, 1):
            raise VitqError(f"{name}: ResizeKeepRatio with longest={step.longest} is neither side")
        resize = Resize.LONGEST if step.longest else Resize.SHORTEST
    elif len(_sides(step.size)) == 2:
        resize = Resize.SQUASH
    interpolation = filter_of(step.interpolation, name)
    return Described(
        resize=resize,
        resize_size=_pair(step.size),
        rounding=rounding,
        interpolation=interpolation,
        crop_offset=CropOffset.HALF_EVEN,
    )


def _sides(size: Any) -> tuple[int, ...]:
    """Return one number or two."""
    return tuple(map(int, size)) if isinstance(size, Sequence) else (int(size),)


def _pair(size: Any) -> tuple[int, int]:
    """Return (H, W) of one number or two."""
    sides = _sides(size)
    return sides[0], sides[-1]


def _numbers(values: Any) -> tuple[float, ...] | None:
    """Return mean or std; one number stands for all channels."""
    if values is None:
        return None
    if isinstance(values, int | float):
        return (float(values),)
    return tuple(map(float, values))
