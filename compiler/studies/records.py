"""What commands keep beside an artifact of what they measured, for `compiler.studies.report`.

    artifacts/<model>/<recipe>-<method>/<target>/evaluate.json   rows of the last evaluation
                                        benchmark.json           rows and machine of the last one

Each names the file that it was measured of by its hash: a record of another one is none.
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


def keep_evaluation(folder: Path, rows: Sequence[Row], source: str | None) -> None:
    """Keep what ``evaluate`` found.

    Args:
        folder: of the library, or of an artifact with one.
        rows: of its backends.
        source: of the pictures; None for the model's own.
    """
    library = open_compiled(folder).folder
    content = {"source": source or "the model's own", "rows": [row.to_json() for row in rows]}
    keep_record(library / EVALUATION, library / LIBRARY_NAME, content)


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
