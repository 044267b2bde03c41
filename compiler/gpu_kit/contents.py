"""Whether a kit is complete: a folder that was not copied must not cost a run on a GPU."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .ffi import RuntimeFailedError
from .kernels import CONSTANTS_NAME, KERNELS_NAME, TASKS_NAME, read_tasks

KIT_NAME = "kit.json"
LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_cuda.so")
MODEL_FILES = ("manifest.json", "model.so")
GOLDEN_FILES = ("golden_pixels.npy", "golden_codes.npy")
NAMED = 6
"""Missing paths in a message."""


def open_kit(kit: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what is in a kit.

    Args:
        kit: its folder.

    Returns:
        The content of ``kit.json`` and that of ``tasks.json``.

    Raises:
        RuntimeFailedError: one of them cannot be read, or something that they name is missing.
    """
    try:
        about = json.loads((kit / KIT_NAME).read_text())
        missing = [] if (kit / TASKS_NAME).is_file() else [TASKS_NAME]
        tasks = read_tasks(kit)
        missing += sorted(set(_missing(kit, about, tasks)))
    except (OSError, ValueError, KeyError) as error:
        raise RuntimeFailedError(f"{kit} is no kit: {error}") from error
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise RuntimeFailedError(
            f"{kit} is incomplete, copy it again: missing {', '.join(missing[:NAMED])}{more}"
        )
    return about, tasks


def _missing(kit: Path, about: dict[str, Any], tasks: list[dict[str, Any]]) -> Iterator[str]:
    """Paths in the kit; a folder that is missing stands for its files."""
    for folder, files in _needed(about, tasks):
        if not (kit / folder).is_dir():
            yield folder
        else:
            yield from (f"{folder}/{file}" for file in files if not (kit / folder / file).is_file())


def _needed(
    about: dict[str, Any], tasks: list[dict[str, Any]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Folders, and what must be in each."""
    yield "lib", LIBRARIES
    for name in about["models"]:
        yield f"models/{name}", (*MODEL_FILES, *GOLDEN_FILES)
    for entry in about["benchmarks"]:
        for name in (*entry["libraries"].values(), *entry["float_libraries"].values()):
            yield f"models/{name}", MODEL_FILES
        if entry.get("onnx"):
            folder, _, file = entry["onnx"].rpartition("/")
            yield folder, (file,)
    for task in tasks:
        yield task["folder"], (KERNELS_NAME, CONSTANTS_NAME)
