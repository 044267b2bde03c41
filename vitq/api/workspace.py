"""Temporary folders in which the stages work, and artifacts that leave or enter them."""

import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path

from vitq.compiler.support.artifacts import (
    EXPORT_NAME,
    GOLDEN_NAME,
    LIBRARY_NAME,
    METADATA_NAME,
    ONNX_NAME,
    QUANTIZE_NAME,
    Artifact,
    file_hash,
    open_artifact,
    read_json,
)
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.artifact import TENSORS_NAME

PREFIX = "vitq-api."
MODEL_FILES = (TENSORS_NAME, ONNX_NAME, EXPORT_NAME, QUANTIZE_NAME)
TARGET_FILES = (LIBRARY_NAME, GOLDEN_NAME, METADATA_NAME)
"""In the order in which they are written: the sign that all are there comes last."""


class Workspace:
    """A temporary folder that goes away with the last object that refers to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        weakref.finalize(self, _remove, self.folder, os.getpid())

    def adopt(self, path: Path) -> Artifact:
        """Copy an artifact without its targets into the workspace.

        Args:
            path: its folder, or a target's in it.

        Raises:
            VitqError: there is none.
        """
        found = open_artifact(path)
        resolved = found.folder.resolve()
        artifact = Artifact(self.folder / resolved.parent.name / resolved.name)
        copy_files(found.folder, artifact.folder, MODEL_FILES)
        return artifact


def _remove(folder: Path, owner: int) -> None:
    """Remove a folder, but not in a forked child, whose parent still uses it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def save_artifact(artifact: Artifact, out: Path) -> None:
    """Write an artifact's own files to a folder; targets of the same model stay there.

    Args:
        artifact: what to write.
        out: made if needed; an earlier artifact of another model there is replaced.

    Raises:
        VitqError: something else lies there.
    """
    if out.exists() and not out.is_dir():
        raise VitqError(f"{out} is a file: give a folder to save to")
    if out.is_dir() and out.samefile(artifact.folder):
        return
    if out.is_dir() and any(out.iterdir()):
        if not any((out / name).is_file() for name in (QUANTIZE_NAME, ONNX_NAME)):
            raise VitqError(f"{out} holds other files: give a new folder, or that of an artifact")
        if _identity(Artifact(out)) != _identity(artifact):
            _clear(out)
    copy_files(artifact.folder, out, MODEL_FILES)


def _identity(artifact: Artifact) -> str:
    """Return what decides the integers of an artifact."""
    if artifact.is_foreign:
        return file_hash(artifact.onnx)
    return str(read_json(artifact.folder / QUANTIZE_NAME)["provenance"]["fingerprint"])


def _clear(folder: Path) -> None:
    """Remove an artifact's files, its targets' included, and nothing else."""
    for name in reversed(MODEL_FILES):
        (folder / name).unlink(missing_ok=True)
    for metadata in folder.glob(f"*/{METADATA_NAME}"):
        for name in reversed(TARGET_FILES):
            (metadata.parent / name).unlink(missing_ok=True)
        if not any(metadata.parent.iterdir()):
            metadata.parent.rmdir()


def copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copy those files that are there; the last one is the sign that the others are complete."""
    target.mkdir(parents=True, exist_ok=True)
    (target / names[-1]).unlink(missing_ok=True)
    for name in names:
        if (source / name).is_file():
            temporary = target / f".{name}.{uuid.uuid4().hex}"
            try:
                shutil.copyfile(source / name, temporary)
                os.replace(temporary, target / name)
            finally:
                temporary.unlink(missing_ok=True)
