"""Load a float model by name, with its weights and its preprocessing.

name -> `building` -> module <- `weights` <- file
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitq.models import EMBEDDED_MODELS, embedded
from vitq.numerics.errors import VitqError
from vitq.quantization.model.building import build, is_sized
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import CONFIG_NAME, folder_name, is_factory, model_folder
from vitq.quantization.model.results import return_tensors
from vitq.quantization.model.weight_files import weight_files
from vitq.quantization.model.weights import load_weights, read_weights
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.inputs import input_of, own_size, size_of
from vitq.quantization.pictures.preprocessing import Preprocessing

__all__ = [
    "LoadedModel",
    "Preprocessing",
    "given_model",
    "load_model",
    "load_weights",
    "read_weights",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A float model, ready to be traced.

    Attributes:
        name: safe as a folder's name.
        module: in eval mode.
        preprocessing: of its input.
    """

    name: str
    module: torch.nn.Module
    preprocessing: Preprocessing


def load_model(
    name: str,
    weights: Path | None = None,
    seed: int | None = None,
    preprocessing: Preprocessing | Described | None = None,
    *,
    weights_key: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Build a model and load its weights.

    Args:
        name: see `quantization.model.names`.
        weights: see `quantization.model.weight_files`. None: embedded models and a folder have
            their own, and a factory may give some; others need `seed`.
        seed: use random weights from this seed (structure and speed, not accuracy).
        preprocessing: what its input means, or what is said of it, which comes before what the
            model says itself. One of timm's is built for the size that it names, if it can be.
        weights_key: which state dict of the file; see `quantization.model.state_dicts`.
        arguments: for ``timm.create_model``.

    Returns:
        The model in eval mode.

    Raises:
        VitqError: unknown name, weights that do not fit, or no weights.
    """
    wanted = size_of(preprocessing)
    module = _built(name, arguments or {}, wanted, 0 if seed is None else seed)
    if weights is None and seed is None:
        weights = own_weights(name)
    found = input_of(name, module, preprocessing, _place(name, weights))
    if weights is not None:
        load_weights(module, weights, weights_key, named=not is_factory(name))
    elif seed is None and is_factory(name):
        logger.info("weights: those that %s gave its model (--weights FILE loads others)", name)
    elif seed is None:
        raise VitqError(
            f"{name}: no weights given: pass --weights FILE, or --random-weights SEED for a "
            "model of the right structure without accuracy"
        )
    return LoadedModel(folder_name(name), prepared(module), found)


def _built(
    name: str, arguments: Mapping[str, Any], size: tuple[int, int] | None, seed: int
) -> torch.nn.Module:
    """Build a model; one of timm's for another size of pictures, if its constructor takes one."""
    torch.manual_seed(seed)
    module = build(name, arguments)
    own = own_size(name, module)
    if size in (None, own) or own is None or not is_sized(name, arguments):
        return module
    torch.manual_seed(seed)
    try:
        other = build(name, {**arguments, "img_size": size})
    except VitqError as error:  # a network without positions, which takes any size
        logger.debug("model: not built for another size: %s", error)
        return module
    logger.info("model: built for %d x %d (its own size is %d x %d)", *(size or own), *own)
    return other


def _place(name: str, weights: Path | None) -> Path | None:
    """Return a file of the folder in which a configuration of the input may lie."""
    if weights is not None:
        return weight_files(weights)[0]
    folder = model_folder(name)
    return None if folder is None else folder / CONFIG_NAME


def own_weights(name: str) -> Path | None:
    """Return where a model's own weights lie; None if its name does not say."""
    if name in EMBEDDED_MODELS:
        checkpoint: Path = embedded(name).CHECKPOINT
        return checkpoint
    return model_folder(name)


def prepared(module: torch.nn.Module) -> torch.nn.Module:
    """Return a model as the stages need it: in eval mode, float32, on the processor, one result.

    Args:
        module: changed in place.

    Raises:
        VitqError: weights without values.
    """
    empty = [key for key, value in module.state_dict().items() if value.is_meta]
    if empty:
        raise VitqError(
            f"the model's {empty[0]} has no values (device meta): build it on the processor, or "
            "pass --weights FILE"
        )
    wide = {v.dtype for v in module.state_dict().values() if v.is_floating_point()}
    if wide - {torch.float32}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in wide))
        logger.info("weights: the model computes in %s; it is taken as float32", names)
    return return_tensors(module.eval().cpu().float())


def given_model(
    name: str, given: GivenModel, preprocessing: Preprocessing | Described | None = None
) -> LoadedModel:
    """Take a model in hand, with what its input means.

    Args:
        name: what it is called.
        given: the model.
        preprocessing: as of `load_model`.

    Returns:
        The model.

    Raises:
        VitqError: if nobody says what its input is.
    """
    found = input_of(name, given.module, preprocessing)
    return LoadedModel(name, prepared(given.module), found)
