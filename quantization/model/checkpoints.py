"""Read what a checkpoint holds, without running any of it.

A checkpoint is a pickle, and a pickle is a program. torch's restricted unpickler runs none: it
knows tensors and plain containers. What trainers store beside the weights (their options, paths,
dates, NumPy's numbers) is on the list `FORGOTTEN`: each is replaced by an empty stand-in of ours,
so that not even these harmless classes are imported or called. Any other global is refused by name.
"""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from vitq.numerics.errors import VitqError, reason
from vitq.quantization.model.weight_files import (
    describe_other,
    is_npz,
    is_safetensors,
    weight_files,
)

LISTED = 4
SAVE = "torch.save(model.state_dict(), FILE)"
MODULES = ("torch.nn.", "torch.fx.", "timm.models.", "timm.layers.", "torchvision.models.")
"""Beginnings of the names of layers: a file with one holds a whole module."""
TRUNCATED = re.compile("central directory|unexpected EOF|Ran out of input|end of file", re.I)
TORCHS = "Weights only load failed"
"""Begins torch's advice to run the code in a file after all."""
GLOBAL = re.compile(r"GLOBAL (\S+)")


class _Forgotten:
    """Stands for an object that is of no use here; knows nothing, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Forgotten":
        """Take anything."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        """Drop it."""


class _Mapping:
    """Stands for a kind of dict: whoever makes one gets a plain one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Drop what it was made with."""
        return OrderedDict()


class _List:
    """Stands for a kind of list."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Drop what it was made with."""
        return []


FORGOTTEN: dict[type, tuple[str, ...]] = {
    _Forgotten: (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(
            f"{module}.{kind}"
            for module in ("pathlib", "pathlib._local")
            for kind in (
                *("Path", "PosixPath", "WindowsPath"),
                *("PurePath", "PurePosixPath", "PureWindowsPath"),
            )
        ),
        *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
        "functools.partial",
        *("typing.Any", "typing.Union", "typing.Optional"),
        *(f"builtins.{name}" for name in ("list", "dict", "tuple", "set", "frozenset")),
        *(f"builtins.{name}" for name in ("int", "float", "str", "bool", "bytes", "bytearray")),
        *(f"builtins.{name}" for name in ("complex", "slice", "range", "object")),
        *(f"__builtin__.{name}" for name in ("set", "object", "long", "unicode")),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
        *(
            f"omegaconf.nodes.{name}Node"
            for name in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
        ),
        "mmengine.logging.history_buffer.HistoryBuffer",
        *(
            "transformers.training_args.TrainingArguments",
            "transformers.trainer_utils.SaveStrategy",
        ),
        *(
            "transformers.trainer_utils.IntervalStrategy",
            "transformers.trainer_utils.SchedulerType",
        ),
        *("torch.torch_version.TorchVersion", "timm.utils.summary.AverageMeter"),
    ),
    _Mapping: (
        "collections.defaultdict",
        *("easydict.EasyDict", "addict.addict.Dict", "addict.Dict", "yacs.config.CfgNode"),
        *("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict"),
        "fvcore.common.config.CfgNode",
        *(
            f"{package}.AttributeDict"
            for package in (
                "pytorch_lightning.utilities.parsing",
                "lightning.pytorch.utilities.parsing",
                "lightning_fabric.utilities.data",
                "lightning.fabric.utilities.data",
            )
        ),
        "ml_collections.config_dict.config_dict.ConfigDict",
    ),
    _List: ("collections.deque", "collections.UserList"),
}
"""Stand-in -> what it stands for."""


def _numpy_globals() -> list[tuple[Any, str]]:
    """NumPy's arrays and numbers, which are data; under the names of NumPy 1 and 2."""
    core: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    found: list[tuple[Any, str]] = [(np.dtype, "numpy.dtype"), (np.ndarray, "numpy.ndarray")]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(core, f"{place}._reconstruct"), (scalar, f"{place}.scalar")]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    found += [(kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds]
    return found


def _known_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    stand_ins: list[Any] = [(kind, name) for kind, names in FORGOTTEN.items() for name in names]
    return [*stand_ins, *_numpy_globals()]


def read_checkpoint(path: Path) -> Any:
    """Read a file, an index with its shards, or a folder.

    Args:
        path: see `quantization.model.weight_files`.

    Returns:
        What it holds, usually nested dicts of tensors.

    Raises:
        VitqError: something else than weights, damaged, or with objects that are not known.
    """
    first, *shards = weight_files(path)
    if not shards:
        return _read_file(first)
    merged: dict[str, Any] = {}
    for shard in shards:
        content = _read_file(shard)
        if not isinstance(content, Mapping):
            raise VitqError(f"weights {shard} hold no state dict: download all shards again")
        merged.update(content)
    return merged


def _read_file(path: Path) -> Any:
    try:
        other = describe_other(path)
    except OSError as error:
        raise VitqError(
            f"weights {path} cannot be read: {reason(error)}: check the file"
        ) from error
    if other is not None:
        raise VitqError(f"weights {path} cannot be read safely: {other}")
    try:
        if is_safetensors(path):
            return safetensors.torch.load_file(path)
        if _holds_npz(path):
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        with warnings.catch_warnings(), torch.serialization.safe_globals(_known_globals()):
            warnings.simplefilter("ignore")  # of pickle's protocol, storages: nothing to do here
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file leads torch.load to KeyError, OSError, ...
        why = _explain(path, error)
        raise VitqError(f"weights {path} cannot be read safely: {why}") from error


def _holds_npz(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return is_npz(archive.namelist())


def _explain(path: Path, error: Exception) -> str:
    """Why a file was refused, in a line, and what to do."""
    text = str(error)
    unknown = _unknown_globals(path) or GLOBAL.findall(text)
    layers = [name for name in unknown if name.startswith(MODULES)]
    if layers:
        return (
            f"it is a whole pickled module ({layers[0]}), whose code would have to run: save its "
            f"weights alone where it was made, {SAVE}"
        )
    if unknown:
        listed = ", ".join(unknown[:LISTED]) + ", ..." * (len(unknown) > LISTED)
        return (
            f"it holds objects of {listed}, which would have to be unpickled: save the weights "
            f"alone where it was made, {SAVE}"
        )
    if TRUNCATED.search(text) or isinstance(error, EOFError):
        return "its end is missing or damaged: download or write it again"
    line = reason(error)
    if isinstance(error, safetensors.SafetensorError):
        return f"damaged safetensors ({line}): download or write it again"
    said = "" if line.startswith(TORCHS) else f" ({line[:160]})"
    return f"neither safetensors nor a checkpoint of torch.save{said}: give one"


def _unknown_globals(path: Path) -> list[str]:
    """Names of the classes and functions in a checkpoint that are not on the list."""
    try:
        with torch.serialization.safe_globals(_known_globals()):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of another format, or damaged: the error at hand says so
        return []
