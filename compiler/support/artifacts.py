"""Where artifacts lie, and how a stage knows that its inputs did not change.

    artifacts/<model>/<recipe>-<method>/
        quantize.json  quantized.safetensors       quantize
        model.onnx     export.json                 export
        <target>/model.so  metadata.json  golden.npz    compile; <target>-b<N> for batch N > 1,
                                                        and -untuned for default schedules

Each stage writes its JSON last and atomically: with the JSON there, the stage is complete. Its
``fingerprint`` is a
hash of everything that went in (contents of files, options, versions, the project's own code).
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vitq.compiler.support.folders import ROOT
from vitq.numerics.errors import VitqError
from vitq.numerics.files import read_object, write_atomically

logger = logging.getLogger(__name__)

LIBRARY_NAME = "model.so"
METADATA_NAME = "metadata.json"
GOLDEN_NAME = "golden.npz"
QUANTIZE_NAME = "quantize.json"
TENSORS_NAME = "quantized.safetensors"
ONNX_NAME = "model.onnx"
EXPORT_NAME = "export.json"
CHUNK = 1 << 20
LISTED = 8
"""Folders that an error names."""


@dataclass(frozen=True)
class Artifact:
    """The folder of one quantized model.

    Attributes:
        folder: ``artifacts/<model>/<recipe>-<method>``.
    """

    folder: Path

    @property
    def onnx(self) -> Path:
        """The QDQ file."""
        return self.folder / ONNX_NAME

    @property
    def is_foreign(self) -> bool:
        """Whether the QDQ file came from elsewhere, without a quantized graph."""
        return not (self.folder / QUANTIZE_NAME).is_file()

    @property
    def export_json(self) -> Path:
        """What export measured."""
        return self.folder / EXPORT_NAME

    def target_folder(self, target: str, batch: int, tuned: bool = True) -> Path:
        """Where the library for a target and a batch size lies."""
        size = "" if batch == 1 else f"-b{batch}"
        return self.folder / f"{target}{size}{'' if tuned else '-untuned'}"


def open_artifact(path: Path) -> Artifact:
    """Return the artifact at a folder, or at a target's folder inside it.

    Raises:
        VitqError: if there is none.
    """
    require_folder(path)
    parent = path.resolve().parent if path.name in {"", ".."} else path.parent
    for folder in (path, parent):
        if (folder / ONNX_NAME).is_file() or (folder / QUANTIZE_NAME).is_file():
            return Artifact(folder)
    raise VitqError(f"{path} is no artifact: run quantize first (or give its folder)")


def require_folder(path: Path) -> None:
    """Refuse a path that is no folder, which could otherwise be taken for its parent.

    Raises:
        VitqError: it does not exist, or is a file.
    """
    if not path.exists():
        known = path.parent if path.parent.is_dir() else None
        beside = sorted(f.name for f in known.iterdir() if f.is_dir()) if known else []
        hint = f", {known} has {', '.join(beside[:LISTED])}" if beside else ""
        raise VitqError(f"{path} does not exist: give the folder of an artifact or a target{hint}")
    if not path.is_dir():
        raise VitqError(f"{path} is a file: give the folder of an artifact or a target")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def source_hash(packages: Iterable[str]) -> str:
    """SHA-256 of the project's own source files in some packages."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, of this project too."""
    found = {}
    for package in ("vitq", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def fingerprint(inputs: dict[str, Any]) -> str:
    """SHA-256 of JSON-able inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a stage's JSON.

    Raises:
        VitqError: missing or damaged.
    """
    return read_object(path, str(path), "run its stage again")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a stage's JSON atomically."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


@contextmanager
def whole_or_nothing(json_path: Path, *files: Path) -> Iterator[None]:
    """Write a stage's files and last its JSON; an error or Ctrl-C leaves none of them.

    Args:
        json_path: the sign of completeness. It is taken back first: a stage that is killed
            between two files would else leave a mixture of two runs that looks complete.
        files: what the stage writes before it.
    """
    json_path.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if not json_path.exists():
            for path in files:
                path.unlink(missing_ok=True)
        raise


def is_current(path: Path, wanted: str, *files: Path) -> bool:
    """Whether a stage's JSON has the wanted fingerprint and its files are there."""
    if not path.is_file() or not all(file.is_file() for file in files):
        return False
    try:
        content = read_json(path)
    except VitqError:
        return False
    found = content.get("fingerprint") or content.get("provenance", {}).get("fingerprint")
    return found == wanted
