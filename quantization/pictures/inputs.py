"""What a model's input means: found in what the model is and brings, under what the user says."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.models import EMBEDDED_MODELS, embedded
from vitq.quantization.pictures.described import Described, resolve, said
from vitq.quantization.pictures.preprocessing import (
    Interpolation,
    Preprocessing,
    Resize,
)
from vitq.quantization.pictures.processors import beside, described, of_timm, read_processor

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TORCHVISION = "torchvision.models"


def input_of(
    name: str,
    module: "torch.nn.Module",
    given: Preprocessing | Described | None = None,
    weights: Path | None = None,
) -> Preprocessing:
    """Find what a model's input means, and say where from.

    Args:
        name: of the model: embedded, timm's, a factory, or what a model in hand is called.
        module: the model.
        given: the whole, as an artifact holds it; or what the user says, which comes first.
        weights: file, beside which a configuration may lie.

    Returns:
        The whole.

    Raises:
        VitqError: nobody says size, mean or std; or what is said does not go together.
    """
    if isinstance(given, Preprocessing):
        return given
    own, source = own_description(name, module, weights)
    built = _built(module).size
    if given is not None and given.size not in (None, built) and built is not None:
        logger.warning(
            "WARNING: %s was built for %d x %d, and its input is to be %d x %d: if it refuses "
            "that, let your code build it for that size",
            *(name, *built, *given.size),
        )
    found = resolve((given or Described()).over(own), name)
    parts = [source, _by_user(given or Described()), _assumption(found)]
    logger.info("pictures: %s; %s", found.describe(), "; ".join(filter(None, parts)))
    return found


def _by_user(given: Described) -> str:
    """Return what the user says, in words; of a processor there are fields without an option."""
    fields = [field for field, _ in said(given)]
    if {"channels", "rounding", "resize_size"} & set(fields):
        return "given: a processor's configuration"
    return f"given: {', '.join(fields)}" if fields else ""


def _assumption(found: Preprocessing) -> str:
    return f"assumed: {', '.join(found.assumed)}" if found.assumed else ""


def own_description(
    name: str, module: "torch.nn.Module", weights: Path | None = None
) -> tuple[Described, str]:
    """Return what a model says of its input, and where that stands.

    Args:
        name: of the model.
        module: the model.
        weights: file, beside which a configuration may lie.
    """
    own, source = _configured(name, module)
    file = beside(weights) if weights is not None else None
    if file is not None:
        own, source = read_processor(file).over(own), f"from {file}"
    return _built(module).over(own), source


def own_size(name: str, module: "torch.nn.Module") -> tuple[int, int] | None:
    """Return (H, W) that a model was built for, or that its configuration says.

    Args:
        name: of the model.
        module: the model.
    """
    return _built(module).over(_configured(name, module)[0]).size


def size_of(said: Preprocessing | Described | None) -> tuple[int, int] | None:
    """Return the (H, W) that is asked for, if any is.

    Args:
        said: of the input: the whole, or what the user says.
    """
    if isinstance(said, Preprocessing):
        return said.input_shape[1:]
    return None if said is None else said.size


def _configured(name: str, module: "torch.nn.Module") -> tuple[Described, str]:
    """Return what the module, or the library that it is from, says."""
    if name in EMBEDDED_MODELS:
        model = embedded(name)
        own = Described(
            size=(model.IMAGE_SIZE, model.IMAGE_SIZE),
            mean=model.MEAN,
            std=model.STD,
            resize=Resize.SHORTEST,
            crop_fraction=1.0,  # it was trained with whole digits
            interpolation=Interpolation.BICUBIC,
        )
        return own, "the embedded model's own"
    for key in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, key, None)
        if isinstance(config, Mapping):
            return of_timm(config, name), f"from the model's {key}"
    module_name, _, builder = name.partition(":")
    if module_name.startswith(TORCHVISION) and builder:
        return _of_torchvision(builder, module)
    return Described(), ""


def _of_torchvision(builder: str, module: "torch.nn.Module") -> tuple[Described, str]:
    """Return what torchvision's weights for a model say; the first ones that are of its size."""
    import torchvision.models  # the factory has imported it

    entries = list(torchvision.models.get_model_weights(builder))
    size = _built(module).size
    for entry in entries:
        found = described(entry, str(entry))
        if size is None or found.size == size:
            return found, f"from torchvision's {entry} (other weights: pass --preprocessor)"
    return Described(), ""


def _built(module: "torch.nn.Module") -> Described:
    """Return size and channels that the module was built for, as far as it shows them."""
    import torch

    places: tuple[Any, ...] = (
        getattr(getattr(module, "patch_embed", None), "img_size", None),
        getattr(module, "image_size", None),
        getattr(getattr(module, "config", None), "image_size", None),
    )
    sizes = (_pair(place) for place in places)
    size = next((found for found in sizes if found is not None), None)
    convs = (m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    first = next(convs, None)
    channels = getattr(module, "in_chans", None) if first is None else first.in_channels
    return Described(size=size, channels=channels)


def _pair(size: Any) -> tuple[int, int] | None:
    """Return (H, W) if that is what it is."""
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return size[0], size[1]
    return None
