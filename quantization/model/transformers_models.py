"""Models that the installed Transformers builds from a folder, ``hf:PATH``.

The folder is what ``save_pretrained`` wrote: config.json, model.safetensors and
preprocessor_config.json. Nothing is downloaded, and no code of the folder is run. Of a model of
pictures and text (CLIP, SigLIP) or of prompts (SAM), the tower that sees the picture is built; of a
depth estimator, its backbone.
"""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError, reason
from vitq.quantization.model.weights import PART

logger = logging.getLogger(__name__)

TOWERS = {
    "clip": "CLIPVisionModelWithProjection",
    "metaclip_2": "MetaClip2VisionModelWithProjection",
    "sam": "SamVisionModel",
    "sam_hq": "SamHQVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
}
"""Kind of a model of several inputs -> class of the part that sees the picture."""
ARGUMENTS = {"num_classes": "num_labels", "img_size": "image_size"}
"""timm's argument -> the configuration's entry."""
PIXELS = "pixel_values"
"""Argument of the forward of models that see a picture."""
RESAMPLES = "interpolate_pos_encoding"
"""Argument of a model's forward that lets it take pictures of another size."""
GRID = "spatial_shapes"
"""Argument of the forward of models that take patches instead of a picture: how many there are."""


def build_transformers(name: str, folder: Path, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build the model that a folder's configuration describes, with random weights.

    Args:
        name: as the user spelled it, for messages.
        folder: has config.json.
        arguments: entries of the configuration to replace.

    Returns:
        The model.

    Raises:
        VitqError: Transformers is not installed, does not know the class, or refuses the entries.
    """
    transformers = _transformers(name)
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever Transformers raises for a configuration
        raise VitqError(
            f"model {name!r}: Transformers {transformers.__version__} cannot read its "
            f"configuration: {reason(error)}"
        ) from error
    whole = config
    kind, config = _tower(name, transformers, config)
    _check_input(name, kind)
    part = config is not whole
    for key, value in arguments.items():
        entry = ARGUMENTS.get(key, key)
        if not hasattr(config, entry):
            raise VitqError(f"model {name!r}: {type(config).__name__} has no entry {entry!r}")
        setattr(config, entry, value)
    try:
        build = getattr(kind, "_from_config", None) or kind.from_config
        module: torch.nn.Module = build(config)
    except Exception as error:  # likewise
        raise VitqError(f"model {name!r}: {kind.__name__} refused it: {reason(error)}") from error
    setattr(module, PART, part)
    if GRID in inspect.signature(module.forward).parameters:
        return _cutting(module, config.patch_size)
    return _resampling(module, getattr(config, "image_size", None))


def _transformers(name: str) -> Any:
    import_timm()  # repairs torchvision where torch and it are of different builds
    try:
        import transformers
    except ImportError as error:
        raise VitqError(
            f"model {name!r} needs Transformers: pip install 'vitq[transformers]' ({reason(error)})"
        ) from error
    return transformers


def _tower(name: str, transformers: Any, config: Any) -> tuple[Any, Any]:
    """Return class and configuration of the part that sees the picture."""
    kind = str(config.model_type)
    if kind in TOWERS and hasattr(config, "vision_config"):
        wanted, whole, config = TOWERS[kind], config, config.vision_config
        config.projection_dim = getattr(whole, "projection_dim", None) or config.hidden_size
        logger.info("model: of %s the part that sees the picture is taken, %s", name, wanted)
    elif getattr(config, "backbone_config", None) is not None:
        logger.info("model: of %s the backbone is taken; what follows it stays float", name)
        return transformers.AutoBackbone, config.backbone_config
    else:
        wanted = next(iter(config.architectures or []), "")
    found = getattr(transformers, wanted, None) if wanted else None
    if not isinstance(found, type):
        known = f"Transformers {transformers.__version__} has no {wanted}"
        why = known if wanted else "config.json names no class (architectures)"
        raise VitqError(
            f"model {name!r}: {why}: write a factory, package.module:factory, that returns yours"
        )
    return found, config


def _check_input(name: str, kind: Any) -> None:
    """Refuse a class that sees no picture; what it builds from a configuration may be another."""
    forward = inspect.signature(kind.forward).parameters if hasattr(kind, "forward") else {}
    if forward and PIXELS not in forward:
        takes = next(iter(key for key in forward if key != "self"), "nothing")
        raise VitqError(
            f"model {name!r}: {kind.__name__} takes {takes} and no pictures ({PIXELS}): only "
            "models of pictures can be quantized"
        )


def _cutting(module: torch.nn.Module, side: int) -> torch.nn.Module:
    """Let a model of patches take a picture, cut as SigLIP2's image processor cuts it.

    A patch is a row of (side, side, C); none is padding, and all pictures have one size.
    """
    kind: Any = type(module)

    def forward(self: Any, pixel_values: torch.Tensor) -> Any:
        channels, height, width = pixel_values.shape[1:]
        if height % side or width % side:
            raise VitqError(
                f"pictures of {height} x {width} are not whole patches of {side}: give "
                "--image-size with multiples of it"
            )
        rows, columns = height // side, width // side
        apart = pixel_values.reshape(-1, channels, rows, side, columns, side)
        patches = apart.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, side**2 * channels)
        grid = torch.tensor([[rows, columns]])
        return kind.forward(self, patches, pixel_attention_mask=None, **{GRID: grid})

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return module


def _resampling(module: torch.nn.Module, size: Any) -> torch.nn.Module:
    """Let a model resample its position embeddings for pictures of another size, if it can."""
    if RESAMPLES not in inspect.signature(module.forward).parameters or size is None:
        return module
    own = tuple(size) if isinstance(size, list | tuple) else (size, size)

    def choose(_: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        shape = tuple(args[0].shape[-2:]) if args else own
        return args, given if shape == own else {RESAMPLES: True, **given}

    module.register_forward_pre_hook(choose, with_kwargs=True)
    return module
