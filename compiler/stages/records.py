"""What commands keep beside an artifact of what they measured, for `compiler.studies.report`.

    artifacts/<model>/<recipe>-<method>/<target>/evaluate.json   rows of the last evaluation
                                        benchmark.json           rows and machine of the last one

Each names the file that it was measured of by its hash: a record of another one is none. An
evaluation also has the hash of the pixels and labels that it saw (`content`), whatever they are
called: where a folder has others at the next one, that is said, as the figures are not comparable.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.scores import Row
from vitq.compiler.support.artifacts import (
    LIBRARY_NAME,
    file_hash,
    open_artifact,
    read_json,
    write_json,
)
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

EVALUATION, BENCHMARK = "evaluate.json", "benchmark.json"
OWN_PICTURES = "the model's own"


def keep_record(path: Path, measured: Path, content: dict[str, Any]) -> None:
    """Write a record; a folder that cannot be written to is said, and is no error.

    Args:
        path: of the record.
        measured: the file that was measured.
        content: JSON-able.
    """
    try:
        write_json(path, {"sha256": file_hash(measured), **content})
    except OSError as error:
        logger.warning("%s is not kept for vitq report: %s", path, error.strerror or error)


def keep_evaluation(
    folder: Path, rows: Sequence[Row], source: str | None, content: str | None = None
) -> None:
    """Keep what ``evaluate`` found.

    Args:
        folder: of the library, or of an artifact with one.
        rows: of its backends.
        source: of the pictures; None for the model's own.
        content: hash of their pixels and labels.
    """
    library = open_compiled(folder).folder
    path, measured = library / EVALUATION, library / LIBRARY_NAME
    found = {
        "source": source or OWN_PICTURES,
        "content": content,
        "rows": [row.to_json() for row in rows],
    }
    before = read_record(path, measured)
    if before is not None and _are_others(before, found):
        logger.warning(
            "WARNING: the pictures or labels in %s changed since the last evaluate: do not compare "
            "its figures with these",
            found["source"],
        )
    keep_record(path, measured, found)


def _are_others(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether as many pictures of the same name are others."""
    numbers = [[row.get("images") for row in record["rows"]][:1] for record in (before, now)]
    is_known = None not in (before.get("content"), now["content"])
    same = before.get("source") == now["source"] and numbers[0] == numbers[1]
    return is_known and same and before["content"] != now["content"]


def keep_benchmark(folder: Path, target: str, machine: str, rows: Sequence[dict[str, Any]]) -> None:
    """Keep what ``benchmark`` measured on this machine.

    Args:
        folder: of the artifact.
        target: of the library.
        machine: its processor.
        rows: of the contestants.
    """
    artifact = open_artifact(folder)
    content = {"target": target, "machine": machine, "rows": list(rows)}
    keep_record(artifact.folder / BENCHMARK, artifact.onnx, content)


def read_record(path: Path, measured: Path) -> dict[str, Any] | None:
    """Return what `keep_record` wrote of the file as it is, or None.

    Args:
        path: of the record.
        measured: the file that it must be of.
    """
    if not (path.is_file() and measured.is_file()):
        return None
    try:
        content = read_json(path)
    except VitqError as error:
        logger.warning("%s", error)
        return None
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        logger.warning("%s is damaged: it is left out", path)
        return None
    return content if content.get("sha256") == file_hash(measured) else None
