"""Which files weights lie in, and what a file is that holds none; nothing here loads torch.

    FILE.safetensors, .pth, .pt, .bin, .ckpt, .npz     itself
    FILE.index.json                                    the shards that it names
    FOLDER (save_pretrained, a Trainer's checkpoint)   the one of these that it holds

A file is known by its first bytes, not by its name: people rename files, and a download that failed
has the right name.
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitq.numerics.errors import VitqError, reason

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What ``save_pretrained`` writes, the better ones first."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz")
NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")
"""Beginnings of the names of what a Trainer writes beside a model."""
INDEX_SUFFIX = ".index.json"
LISTED = 6
HEAD = 512
SAVE = "save model.state_dict() in PyTorch, and give that"
CONVERT = f"load it with the library that wrote it, {SAVE}"
MAGIC: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer: run git lfs pull, or download the file itself",
    ),
    (b"GGUF", "a GGUF file of quantized weights: give the PyTorch weights that it was made from"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as Keras writes it: {CONVERT}"),
    (b"\x93NUMPY", "a single NumPy array: give a state dict"),
    (b"\x1f\x8b", "compressed by gzip: run gunzip, then give what is inside"),
    (b"BZh", "compressed by bzip2: unpack it, then give what is inside"),
    (b"\xfd7zXZ", "compressed by xz: unpack it, then give what is inside"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it, then give what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it, then give what is inside"),
    (b"Rar!", "a RAR archive: unpack it, then give what is inside"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"ftrt", "a TensorRT engine: give the PyTorch weights that it was made from"),
    (b"\x7fELF", "a program or library: give the PyTorch weights"),
)
BY_SUFFIX = {
    ".onnx": "an ONNX file: a float one is a model (--model FILE.onnx), a quantized one is "
    "compiled (vitq compile FILE.onnx); here " + SAVE,
    ".msgpack": f"Flax's weights: {CONVERT}",
    ".h5": f"Keras' weights: {CONVERT}",
    ".keras": f"a Keras model: {CONVERT}",
    ".pb": f"a TensorFlow graph: {CONVERT}",
    ".tflite": "a TensorFlow Lite model: give the PyTorch weights that it was made from",
    ".engine": "a TensorRT engine: give the PyTorch weights that it was made from",
    ".mlmodel": "a Core ML model: give the PyTorch weights that it was made from",
    ".pdparams": f"PaddlePaddle's weights: {CONVERT}",
}
IN_ZIP: tuple[tuple[str, str], ...] = (
    ("model.weights.h5", BY_SUFFIX[".keras"]),
    ("constants.pkl", f"a TorchScript archive (torch.jit.save), a program: {SAVE}"),
    ("serialized_exported_program.json", f"an exported program (torch.export.save): {SAVE}"),
    ("archive_format", f"an exported program (torch.export.save, .pt2): {SAVE}"),
)
"""Names inside of a zip archive that tell what it is."""


def weight_files(path: Path) -> tuple[Path, ...]:
    """Find the files that weights lie in.

    Args:
        path: file, index of shards, or folder.

    Returns:
        One file, or an index and behind it its shards.

    Raises:
        VitqError: nothing there, a folder with none or several, an index with shards missing.
    """
    try:
        if path.is_dir():
            path = _in_folder(path)
        if not path.is_file():
            raise VitqError(f"weights {path} do not exist{_beside(path)}")
        return (path, *_shards(path)) if path.name.endswith(INDEX_SUFFIX) else (path,)
    except OSError as error:
        raise VitqError(
            f"weights {path} cannot be read: {reason(error)}: check the path"
        ) from error


def _beside(path: Path) -> str:
    """Return the weights in a missing file's folder, for its message."""
    found = _candidates(path.parent) if path.parent.is_dir() else []
    return f": {path.parent} has {_names(found)}" if found else ": give a file or a folder"


def _candidates(folder: Path) -> list[Path]:
    """Files in a folder that may hold a model's weights."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.is_file() and not file.name.startswith(NO_WEIGHTS)
    )


def _names(files: Iterable[Path]) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:LISTED]) + ", ..." * (len(names) > LISTED)


def _in_folder(folder: Path) -> Path:
    """Return the one file of a folder that holds weights, or an index."""
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    found = _candidates(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise VitqError(f"weights {folder} is a folder of several: give one of {_names(found)}")
    deeper = sorted(sub for sub in folder.iterdir() if sub.is_dir() and _candidates(sub))
    foreign = sorted(file for file in folder.iterdir() if file.suffix in BY_SUFFIX)
    if deeper:
        raise VitqError(f"weights {folder} hold none themselves: give one of {_names(deeper)}")
    if foreign:
        raise VitqError(f"weights {folder}: {foreign[0].name} is {BY_SUFFIX[foreign[0].suffix]}")
    raise VitqError(
        f"weights {folder} is a folder without weights: give a file, or a folder with "
        f"{FOLDER_FILES[0]} or {FOLDER_FILES[2]}"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, all of which must lie beside it."""
    try:
        named: Any = json.loads(index.read_bytes())["weight_map"].values()
        names = sorted(set(named))
        plain = all(Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VitqError(
            f"weights {index} cannot be read safely: an index of shards needs a weight_map: "
            "download it again"
        ) from error
    missing = [name for name in names if not plain or not (index.parent / name).is_file()]
    if missing or not names:
        listed = _names(map(Path, missing)) or "no shard at all"
        raise VitqError(f"weights {index} are incomplete, {listed} missing: download all shards")
    return tuple(index.parent / name for name in names)


def describe_other(path: Path) -> str | None:
    """Say what a file is, and what to do, if it holds no weights that can be read.

    Args:
        path: of a file.

    Returns:
        None where it may hold some.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "the file is empty: download or write it again"
    known = next((text for magic, text in MAGIC if head.startswith(magic)), None)
    if known is not None:
        return f"it is {known}"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, as a failed download leaves it: open it to see why"
    if text.startswith(b"<?xml"):
        return f"it is an XML file: {SAVE}"
    if head[4:8] == b"TFL3":
        return f"it is {BY_SUFFIX['.tflite']}"
    if head.startswith(b"PK\x03\x04"):
        return _describe_zip(path)
    if text.startswith(b"{") and not is_safetensors(path):
        return "it is a JSON file: give the weights beside it"
    if path.suffix in BY_SUFFIX:
        return f"it is {BY_SUFFIX[path.suffix]}"
    return None


def _describe_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return "its end is missing or damaged: download or write it again"
    for inner, text in IN_ZIP:
        if any(name.rpartition("/")[2] == inner for name in names):
            return f"it is {text}"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names) or is_npz(names):
        return None
    return "it is a zip archive of other files: unpack it, and give the weights inside"


def is_npz(names: Iterable[str]) -> bool:
    """Whether a zip archive of files with these names is NumPy's."""
    found = list(names)
    return bool(found) and all(name.endswith(".npy") for name in found)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: a length, and JSON of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8
