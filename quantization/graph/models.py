"""Load a float model by name, with its weights and its preprocessing.

A name is the embedded model (``digits_vit``), a timm model name, or ``package.module:factory`` for
a callable that returns a ``torch.nn.Module``. Weights are never unpickled.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.described import Described
from vitq.quantization.graph.factories import call_factory, is_factory
from vitq.quantization.graph.given import GivenModel
from vitq.quantization.graph.inputs import input_of
from vitq.quantization.graph.preprocessing import Preprocessing
from vitq.quantization.graph.timm_compat import import_timm

logger = logging.getLogger(__name__)

EMBEDDED_MODEL = "digits_vit"
STATE_DICT_KEYS = ("state_dict", "model")
LISTED_KEYS = 4


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
) -> LoadedModel:
    """Build a model and load its weights.

    Args:
        name: embedded model, timm name or ``package.module:factory``.
        weights: safetensors or a torch checkpoint (plain, or under ``state_dict`` or ``model``).
            None: the embedded model has its own; others need `seed`.
        seed: use random weights from this seed (structure and speed, not accuracy).
        preprocessing: what its input means, or what is said of it, which comes before what the
            model says itself.

    Returns:
        The model in eval mode.

    Raises:
        VitqError: unknown name, weights that do not fit, or no weights.
    """
    torch.manual_seed(0 if seed is None else seed)
    module = _build(name)
    found = input_of(name, module, preprocessing, weights)
    if weights is None and name == EMBEDDED_MODEL and seed is None:
        from vitq.models.digits_vit import CHECKPOINT

        weights = CHECKPOINT
    if weights is not None:
        load_weights(module, weights)
    elif seed is None:
        raise VitqError(
            f"{name}: no weights given: pass --weights FILE, or --random-weights SEED for a "
            "model of the right structure without accuracy"
        )
    return LoadedModel(name.replace(":", "."), module.eval(), found)


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
    return LoadedModel(name, given.module, found)


def _build(name: str) -> torch.nn.Module:
    if name == EMBEDDED_MODEL:
        from vitq.models.digits_vit import digits_vit

        return digits_vit()
    if is_factory(name):
        return _from_factory(name)
    timm = import_timm()
    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.split('_')[0]}*")[:LISTED_KEYS]
        hint = f", such as {', '.join(similar)}" if similar else ""
        raise VitqError(
            f"model {name!r} is unknown: give {EMBEDDED_MODEL}, a timm name{hint}, or "
            "package.module:factory"
        )
    module: torch.nn.Module = timm.create_model(name, pretrained=False)
    return module


def _from_factory(name: str) -> torch.nn.Module:
    module = call_factory(name)
    if not isinstance(module, torch.nn.Module):
        raise VitqError(f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module")
    return module


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without unpickling code.

    Args:
        path: ``.safetensors``, or a file for ``torch.load(weights_only=True)``.

    Returns:
        Parameter name -> tensor.

    Raises:
        VitqError: if the file cannot be read or holds no state dict.
    """
    if not path.is_file():
        raise VitqError(f"weights {path} do not exist")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file also leads torch.load to KeyError, OSError, ...
        line = str(error).strip().splitlines()[0] if str(error).strip() else "unreadable"
        raise VitqError(f"weights {path} cannot be read safely: {line}") from error
    for key in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise VitqError(f"weights {path} hold no state dict (also not under state_dict or model)")
    return dict(content)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load weights strictly; what does not fit is listed.

    Raises:
        VitqError: missing, unexpected or misshapen keys.
    """
    state = read_weights(path)
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:LISTED_KEYS])}{', ...' * (len(keys) > LISTED_KEYS)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", extra),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise VitqError(f"weights {path} do not fit the model: {'; '.join(problems)}")
    module.load_state_dict(state)
