"""Names of models, as timm and people spell them, and what folder of files a name means.

    digits_vit, digits_swin          embedded
    vit_tiny_patch16_224[.TAG]       timm's; also timm/NAME, as its repositories are called
    local-dir:FOLDER                 a folder with config.json and weights
    hf:FOLDER                        the same, built by the installed Transformers
    hf-hub:ORG/NAME[@REVISION]       one in Hugging Face's local cache; the network is never used
    FILE.onnx                        a float ONNX file
    package.module:factory           the user's own function

Nothing here loads torch.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitq.numerics.errors import VitqError, nearest, reason

LOCAL, HUB = "local-dir:", "hf-hub:"
TRANSFORMERS = "hf:"
FOLDERS = (LOCAL, TRANSFORMERS)
HUB_SPELLINGS = (HUB, "hf_hub:")
TIMM = "timm/"
ONNX = ".onnx"
CONFIG_NAME = "config.json"
SHORT_HASH = 8
LONGEST_NAME = 100
"""Of a model, in a message."""
_UNSAFE = re.compile(r"[^\w.-]+")
_SEPARATORS = re.compile(r"[:/@]+")


def is_folder_name(model: str) -> bool:
    """Whether a model's name means a folder of files."""
    return model.startswith((*FOLDERS, *HUB_SPELLINGS))


def is_onnx(model: str) -> bool:
    """Whether a model's name means an ONNX file."""
    return model.lower().endswith(ONNX)


def is_factory(model: str) -> bool:
    """Whether a model's name means a factory."""
    return ":" in model and not is_folder_name(model) and not is_onnx(model)


def model_folder(model: str) -> Path | None:
    """Find the folder that a name means.

    Args:
        model: a model's name.

    Returns:
        The folder, which has a configuration; None for a name of another kind.

    Raises:
        VitqError: there is no such folder, or the cache has no such repository.
    """
    kind, _, place = model.partition(":")
    if is_folder_name(model) and not place.strip():
        what = "ORG/NAME of the local cache" if model.startswith(HUB_SPELLINGS) else "FOLDER"
        raise VitqError(f"model {model!r} names nothing: give {kind}:{what}")
    if model.startswith(FOLDERS):
        folder = Path(model.partition(":")[2]).expanduser()
        if not (folder / CONFIG_NAME).is_file():
            what = f"has no {CONFIG_NAME}" if folder.is_dir() else "is no folder"
            raise VitqError(
                f"model {model!r}: {folder} {what}: give the folder that save_pretrained (of timm "
                f"or Transformers) wrote, with {CONFIG_NAME} and model.safetensors"
            )
        return folder
    if model.startswith(HUB_SPELLINGS):
        return _cached(model.partition(":")[2], model)
    return None


def _cached(repository: str, model: str) -> Path:
    """Find a repository's snapshot in Hugging Face's cache."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    try:
        found = try_to_load_from_cache(name, CONFIG_NAME, revision=revision or None)
    except ValueError as error:
        raise VitqError(f"model {model!r}: give {HUB}ORG/NAME: {reason(error)}") from error
    if not isinstance(found, str):
        raise VitqError(
            f"model {model!r} is not in Hugging Face's local cache, and vitq does not use the "
            f"network: run hf download {repository.replace('@', ' --revision ')}, or give "
            f"{LOCAL}FOLDER"
        )
    return Path(found).parent


def folder_name(model: str) -> str:
    """Return the name of a model's folder in an artifact's path.

    Two models of different places never share one: a path becomes its last part and a hash of the
    whole.
    """
    if model.startswith(FOLDERS):
        folder = Path(model.partition(":")[2]).expanduser().resolve()
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:SHORT_HASH]
        return _UNSAFE.sub("_", f"{folder.name}-{digest}")
    if is_onnx(model):
        path = Path(model).expanduser().resolve()
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:SHORT_HASH]
        return _UNSAFE.sub("_", f"{path.stem}-{digest}")
    return _SEPARATORS.sub(".", model.removeprefix(TIMM))


def parse_kwargs(texts: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Read ``key=value`` arguments of a model.

    Args:
        texts: a value is a Python literal, or else taken as text.

    Returns:
        Pairs, sorted by key.

    Raises:
        VitqError: a text without a key.
    """
    read: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier()):
            raise VitqError(f"model argument {text!r}: give key=value, such as img_size=384")
        try:
            read[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            read[key] = value
    return freeze(read)


def freeze(arguments: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """Return arguments as options hold them."""
    return tuple(sorted((arguments or {}).items()))


def _kind(path: Path) -> str:
    """Return whether there is a folder or a file, or empty."""
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else ""
    except (OSError, ValueError):  # too long for a name
        return ""


def unknown(model: str, names: Iterable[str], embedded: str) -> VitqError:
    """Return the error for a name that nobody knows, with what is near to it.

    Args:
        model: as the user spelled it.
        names: that timm knows.
        embedded: names of the embedded models.
    """
    path = Path(model)
    kind = _kind(path) if model else ""
    if kind == "folder":
        return VitqError(f"model {model!r} is a folder: give {LOCAL}{model}")
    if kind == "file":
        way = f"vitq compile {model}" if path.suffix == ".onnx" else f"--weights {model}"
        return VitqError(f"model {model!r} is a file, not a name: give {way}")
    known = list(names)
    near = nearest(model, known)
    family = [name for name in known if name.startswith(model.split("_")[0])][:4] if model else []
    such = f", such as {', '.join(family)}" if family else ""
    hub = ""
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        hub = f"; of a Hugging Face repository in the local cache {HUB}{model}"
    model = model if len(model) <= LONGEST_NAME else f"{model[:LONGEST_NAME]}..."
    return VitqError(
        f"model {model!r} is unknown: give {embedded}, a timm name{such}, hf:FOLDER, or "
        f"package.module:factory{hub}{near}"
    )
