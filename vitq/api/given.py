"""What callers have in hand, as the stages take it."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vitq.api.workspace import Workspace
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.embedded import EMBEDDED_MODELS, EMBEDDED_PICTURES, GENERATED
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import freeze
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.processors import described, read_processor
from vitq.quantization.plan.output import Output

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Model: TypeAlias = torch.nn.Module | str | Path | Callable[[], torch.nn.Module]
    Pixels: TypeAlias = UInt8Array | str | Path | Iterable[Image]
    Labels: TypeAlias = Sequence[int] | np.ndarray

    Preprocessor: TypeAlias = str | Path | Mapping[str, Any] | Any

DEFAULT_COUNT = 32
"""Calibration pictures of a source that is named."""
_UNSAFE = re.compile(r"[^\w.-]+")


def model_options(
    workspace: Workspace,
    model: "Model",
    calibration: "Pixels | None",
    *,
    name: str | None = None,
    recipe: str | Path = "w8a8",
    method: str = "repq",
    nonlinear: str = "vitq",
    weights: str | Path | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    random_weights: int | None = None,
    output_features: Sequence[str] = (),
    output: str = "codes",
    preprocessing: "Preprocessor | None" = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    count: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    max_drop: float | None = None,
    source: str = "array",
) -> QuantizeOptions:
    """Options of the stages, as `vitq.quantize` describes them.

    The stages write to the workspace; `source` is what calibration pictures in hand are called.

    Raises:
        VitqError: what can be refused without loading anything.
    """
    called, module = given_model(model, name)
    pictures = given_pictures(calibration, None, count if seed == 0 else None, source)
    if pictures is None and called not in EMBEDDED_MODELS:
        raise VitqError(
            f"{called}: no calibration pictures: give uint8 pixels, a folder, a .npy file or PIL "
            "images; or 'psaq' to make some from the model"
        )
    return QuantizeOptions.parse(
        model=called,
        module=module,
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        num_classes=num_classes,
        model_kwargs=freeze(model_kwargs),
        random_weights=random_weights,
        output_features=tuple(output_features),
        output=_output(output),
        calib=pictures,
        calib_count=_calibration_count(pictures, count),
        calib_seed=seed,
        calib_steps=steps,
        max_drop=max_drop,
        recipe=str(recipe),
        method=method,
        nonlinear=nonlinear,
        preprocessor=preprocessor_of(preprocessing),
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
        mean=numbers(mean),
        std=numbers(std),
        artifacts=workspace.folder,
    )


def _output(name: str) -> Output:
    """Read what becomes of maps of scores.

    Raises:
        VitqError: it is unknown.
    """
    if name not in tuple(Output):
        raise VitqError(f"output {name!r}{nearest(name, tuple(Output))}: choose codes or argmax")
    return Output(name)


def preprocessor_of(given: "Preprocessor | None") -> Path | Described | None:
    """Take what says how pictures become the input, as `QuantizeOptions` takes it.

    Raises:
        VitqError: it says nothing that is known here.
    """
    if given is None or isinstance(given, str | Path):
        return None if given is None else Path(given)
    return described(given, "preprocessing")


def described_pictures(given: "Preprocessor | None") -> Described:
    """Return what is said of a foreign file's pictures.

    Raises:
        VitqError: it says nothing that is known here.
    """
    found = preprocessor_of(given)
    return read_processor(found) if isinstance(found, Path) else found or Described()


def numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    """Means or deviations, of whatever type they came in."""
    return None if values is None else tuple(map(float, values))


def given_model(model: "Model", name: str | None) -> tuple[str, GivenModel | None]:
    """Find a model's name, and the model itself where it is in hand.

    Args:
        model: module, factory, or the name of a model or file.
        name: what a module in hand is to be called; None for its class or function.

    Returns:
        Both, as `QuantizeOptions` takes them.

    Raises:
        VitqError: a factory returns something else, or a named model is given another name.
    """
    if isinstance(model, str | Path):
        model = str(model)
        if name is not None:
            raise VitqError(f"name={name!r} is for a module in hand: {model!r} has a name")
        return model, None
    import torch

    if isinstance(model, torch.nn.Module):
        return name or type(model).__name__, GivenModel.of(model)
    if not callable(model):
        raise VitqError(
            f"model is a {type(model).__name__}: give a torch.nn.Module, a name, or a function "
            "that returns a module"
        )
    own = getattr(model, "__qualname__", type(model).__name__)
    made = model()
    if not isinstance(made, torch.nn.Module):
        raise VitqError(f"{own}() returned {type(made).__name__}, not a torch.nn.Module")
    return name or _UNSAFE.sub("_", own), GivenModel.of(made)


def given_pictures(
    pictures: "Pixels | None",
    labels: "Labels | None" = None,
    count: int | None = None,
    source: str = "array",
) -> str | GivenPictures | None:
    """Pictures as `quantization.pictures.pictures.load_pictures` takes them.

    Args:
        pictures: pixels, a path, the name of a source, or PIL's pictures.
        labels: class numbers of pictures in hand.
        count: of an iterator, no more are taken from it than this.
        source: what pictures in hand are called.

    Raises:
        VitqError: something else, or labels of pictures that are not in hand.
    """
    if pictures is None or isinstance(pictures, str | Path):
        if labels is not None:
            raise VitqError("labels belong to pictures in hand; a folder has its own: labels.csv")
        return _source(pictures)
    numbers = None if labels is None else np.asarray(labels)
    if numbers is not None and numbers.dtype.kind not in "iu":
        raise VitqError(f"labels are {numbers.dtype}: give class numbers, integers from 0")
    return GivenPictures(_images(pictures, count), numbers, source)


def _source(path: str | Path | None) -> str | None:
    """Keep a path from being taken for the name of a source."""
    name = None if path is None else str(path)
    if isinstance(path, Path) and name in (*GENERATED, *EMBEDDED_PICTURES):
        return f"./{name}"
    return name


def _images(pictures: Any, count: int | None) -> "UInt8Array | tuple[Image, ...]":
    from PIL.Image import Image

    if isinstance(pictures, Image):
        return (pictures,)
    if hasattr(pictures, "__array__"):
        return pixels_of(pictures)
    if not isinstance(pictures, Iterable):
        raise VitqError(
            f"pictures are a {type(pictures).__name__}: give uint8 (N, C, H, W), a folder, a .npy "
            "file, or PIL images"
        )
    images = tuple(itertools.islice(pictures, count))
    wrong = [type(image).__name__ for image in images if not isinstance(image, Image)]
    if wrong:
        raise VitqError(f"an iterable of pictures yields {wrong[0]}: it must yield PIL images")
    return images


def pixels_of(pixels: Any) -> UInt8Array:
    """Take an array, or a tensor on the processor, as an array.

    Raises:
        VitqError: it is none of both.
    """
    if not hasattr(pixels, "__array__"):
        raise VitqError(f"pixels are a {type(pixels).__name__}: give a uint8 array (N, C, H, W)")
    found: UInt8Array = np.asarray(pixels)
    return found


def _calibration_count(calibration: str | GivenPictures | None, count: int | None) -> int:
    """How many calibration pictures: all in hand, else `DEFAULT_COUNT`."""
    if count is not None:
        return count
    if not isinstance(calibration, GivenPictures):
        return DEFAULT_COUNT
    images = calibration.images
    return 1 if isinstance(images, np.ndarray) and images.ndim == 3 else max(1, len(images))
