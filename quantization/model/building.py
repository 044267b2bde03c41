"""Build a float model from its name, without weights.

timm builds what it knows by name. Of a folder that ``save_pretrained`` wrote, timm's configuration
names the architecture; Transformers' ViT and DeiT become timm's Vision Transformer of the same
shape, which computes the same (`quantization.model.layouts` renames the weights).
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitq.models import EMBEDDED_MODELS, embedded
from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError, reason
from vitq.numerics.files import read_object
from vitq.quantization.model.factories import call_factory
from vitq.quantization.model.names import (
    CONFIG_NAME,
    TIMM,
    TRANSFORMERS,
    is_factory,
    model_folder,
    unknown,
)
from vitq.quantization.model.transformers_models import build_transformers

ACTIVATIONS = {
    "gelu": None,
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
"""Transformers' name -> timm's; None for its default."""
CLASSES = {
    "ViTForImageClassification": "vit_base_patch16_224",
    "DeiTForImageClassificationWithTeacher": "deit_base_distilled_patch16_224",
}
"""Transformers' class -> timm's architecture of that structure."""


def build(name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build a model.

    Args:
        name: see `quantization.model.names`.
        arguments: for ``timm.create_model``.

    Returns:
        The model, with random weights or with those that a factory gave it.

    Raises:
        VitqError: an unknown name, arguments that do not fit, an error in a factory.
    """
    if name in EMBEDDED_MODELS or is_factory(name):
        if arguments:
            raise VitqError(
                f"model {name!r} takes no arguments (--num-classes, --model-kwargs): they are for "
                "timm's models; let the factory build what you need"
            )
        return _embedded(name) if name in EMBEDDED_MODELS else _from_factory(name)
    folder = model_folder(name)
    if folder is not None and name.startswith(TRANSFORMERS):
        return build_transformers(name, folder, arguments)
    if folder is not None:
        return _from_folder(name, folder, arguments)
    plain = name.removeprefix(TIMM)
    _require_known(name, plain)
    return _create(name, plain, arguments)


def is_sized(name: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether a model can be asked for another size of pictures: timm's, if nobody gives one.

    Args:
        name: as of `build`.
        arguments: as of `build`.
    """
    built_elsewhere = name in EMBEDDED_MODELS or is_factory(name) or name.startswith(TRANSFORMERS)
    return not built_elsewhere and "img_size" not in arguments


def _embedded(name: str) -> torch.nn.Module:
    module: torch.nn.Module = getattr(embedded(name), name)()
    return module


def _from_factory(name: str) -> torch.nn.Module:
    module = call_factory(name)
    if not isinstance(module, torch.nn.Module):
        raise VitqError(
            f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module: return the "
            "model"
        )
    return module


def _require_known(name: str, plain: str) -> None:
    """Refuse an architecture or a tag that timm does not know."""
    timm = import_timm()
    if not plain or not timm.is_model(plain):
        raise unknown(name, timm.list_models(), ", ".join(EMBEDDED_MODELS))
    architecture, _, tag = plain.partition(".")
    known = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        listed = ", ".join(known) or "none"
        raise VitqError(
            f"model {name!r}: timm has no tag {tag!r} of {architecture}: give one of {listed}, or "
            "none"
        )


def _create(name: str, timm_name: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Let timm build a model."""
    try:
        made: torch.nn.Module = import_timm().create_model(timm_name, pretrained=False, **arguments)
        return made
    except Exception as error:  # whatever its constructors raise for arguments that do not fit
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise VitqError(f"model {name!r}: timm refused {given or 'it'}: {reason(error)}") from error


def _from_folder(name: str, folder: Path, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build the model that a folder's configuration describes."""
    path = folder / CONFIG_NAME
    config = read_object(path, f"the configuration {path}", "download it again")
    if "architecture" in config:
        return _create(name, f"local-dir:{folder}", arguments)
    kinds = config.get("architectures") or [config.get("model_type", "nothing known")]
    if kinds[0] not in CLASSES:
        raise VitqError(
            f"model {name!r}: {path} describes {kinds[0]}: taken are timm's models and "
            f"{', '.join(CLASSES)}; {TRANSFORMERS}{folder} lets the installed Transformers build "
            "it, or write a factory, package.module:factory, that returns yours"
        )
    try:
        own = _timm_arguments(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise VitqError(f"model {name!r}: {path} is incomplete: {reason(error)}") from error
    module: Any = _create(name, CLASSES[kinds[0]], {**own, **arguments})
    module.pretrained_cfg = module.default_cfg = {}  # of other weights; its folder says its own
    made: torch.nn.Module = module
    return made


def _timm_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer for one of Transformers."""
    width = int(config["hidden_size"])
    activation = ACTIVATIONS[config.get("hidden_act", "gelu")]
    return {
        "img_size": config["image_size"],
        "patch_size": config["patch_size"],
        "in_chans": config.get("num_channels", 3),
        "embed_dim": width,
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": (config["intermediate_size"] + 0.5) / width,  # rounded down again
        "qkv_bias": config.get("qkv_bias", True),
        "num_classes": len(config["id2label"]) if "id2label" in config else 2,
        "norm_layer": functools.partial(torch.nn.LayerNorm, eps=config["layer_norm_eps"]),
        **({} if activation is None else {"act_layer": activation}),
    }
