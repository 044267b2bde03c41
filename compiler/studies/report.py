"""Study ``report``: several artifacts side by side.

Accuracy and times are those that ``evaluate`` and ``benchmark`` kept (`compiler.stages.records`),
as long as they are of these very files. Artifacts with the same integers give the same answers: the
hash is that of the golden pictures and of the integer logits that must come out of them.
"""

import dataclasses
import hashlib
import logging
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.output_scores import OutputScore
from vitq.compiler.stages.records import BENCHMARK, EVALUATION, read_record
from vitq.compiler.support.artifacts import (
    GOLDEN_NAME,
    LIBRARY_NAME,
    METADATA_NAME,
    Artifact,
    open_artifact,
)
from vitq.numerics.errors import VitqError, reason

logger = logging.getLogger(__name__)

LIBRARY, FLOAT = "library", "float"
OWN = "vitq-int8-tuned"


@dataclass(frozen=True)
class Entry:
    """One artifact, or one of its libraries.

    Attributes:
        folder: of the library, or of an artifact that has none yet.
        model: its name.
        target: that the library is for, None without one.
        recipe: widths; None of a foreign file, and so are the next two.
        method: of calibration.
        nonlinear: family of integer operators.
        widths: bits of weights -> number of layers.
        size_bytes: of the library.
        integers: hash of pictures and of the integers that come out; None before compiling.
        pictures: how many were evaluated on, None without a record.
        source: where those come from.
        content: hash of their pixels and labels.
        top1: right answers of the library (or what was evaluated last), None without labels.
        float_top1: of the float model.
        agreement: fraction of pictures with the float model's answer.
        mean_cosine: of the logits.
        sqnr_db: likewise.
        outputs: figures of each result, where there are others than logits.
        times_ms: ``batch x threads`` -> median time of a run, from the last benchmark.
        machine: that it ran on.
    """

    folder: str
    model: str
    target: str | None
    recipe: str | None
    method: str | None
    nonlinear: str | None
    widths: dict[int, int]
    size_bytes: int | None
    integers: str | None
    pictures: int | None
    source: str | None
    content: str | None
    top1: int | None
    float_top1: int | None
    agreement: float | None
    mean_cosine: float | None
    sqnr_db: float | None
    outputs: tuple[OutputScore, ...]
    times_ms: dict[str, float]
    machine: str | None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


def report(folders: Sequence[Path]) -> list[Entry]:
    """Read several artifacts.

    Args:
        folders: of artifacts, all whose libraries are taken, or of targets.

    Returns:
        One entry for each library, and for each artifact without one.

    Raises:
        VitqError: no folder, or no artifact there.
    """
    if not folders:
        raise VitqError("nothing to report on: give the folders of artifacts")
    entries = [entry for folder in folders for entry in _entries(folder)]
    _say_others(entries)
    return entries


def _say_others(entries: Sequence[Entry]) -> None:
    """Warn of figures that look comparable and are not: pictures of one name, and others."""
    first: dict[tuple[str | None, int | None], Entry] = {}
    for entry in entries:
        known = first.setdefault((entry.source, entry.pictures), entry)
        if None not in (known.content, entry.content) and known.content != entry.content:
            logger.warning(
                "WARNING: %s and %s were evaluated on other pictures or labels, though both call "
                "them %s: evaluate them again to compare them",
                *(known.folder, entry.folder, entry.source),
            )


def _entries(folder: Path) -> Iterator[Entry]:
    artifact = open_artifact(folder)
    if (folder / METADATA_NAME).is_file():
        yield _entry(artifact, folder)
        return
    libraries = sorted(path.parent for path in artifact.folder.glob(f"*/{METADATA_NAME}"))
    for library in libraries:
        yield _entry(artifact, library)
    if not libraries:
        yield _entry(artifact, None)


def _entry(artifact: Artifact, library: Path | None) -> Entry:
    facts, bits = _quantized(artifact)
    metadata = {} if library is None else open_compiled(library).metadata
    named = metadata.get("metadata_props", {}).get("vitq.model")
    path = None if library is None else library / LIBRARY_NAME
    return Entry(
        folder=str(library or artifact.folder),
        model=facts.get("model") or named or artifact.folder.parent.name,
        target=metadata.get("target"),
        recipe=facts.get("recipe", {}).get("name"),
        method=facts.get("method"),
        nonlinear=facts.get("nonlinear"),
        widths=bits,
        size_bytes=path.stat().st_size if path is not None and path.is_file() else None,
        integers=None if library is None else integers_hash(library / GOLDEN_NAME),
        **_accuracy(library),
        **_times(artifact, metadata.get("target")),
    )


def _quantized(artifact: Artifact) -> tuple[dict[str, Any], dict[int, int]]:
    """Return provenance, and how many layers have weights of each width; of foreign files none."""
    from vitq.quantization.graph import artifact as storage

    if artifact.is_foreign:
        return {}, {}
    model = storage.load(artifact.folder)
    limits = [
        model.graph.qparams[node.params["weight"]]
        for node in model.graph
        if "weight" in node.params
    ]
    return model.provenance, dict(sorted(Counter(q.qmax.bit_length() + 1 for q in limits).items()))


def integers_hash(golden: Path) -> str | None:
    """SHA-256 of the arrays of a golden file, which its compression does not change."""
    if not golden.is_file():
        return None
    digest = hashlib.sha256()
    try:
        with np.load(golden, allow_pickle=False) as arrays:
            for name in sorted(arrays.files):
                value = arrays[name]
                digest.update(f"{name} {value.shape} {value.dtype.kind}".encode())
                digest.update(value.astype(np.int64).tobytes())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise VitqError(f"{golden} is damaged ({reason(error)}): compile again") from error
    return digest.hexdigest()


def _accuracy(library: Path | None) -> dict[str, Any]:
    figures = ("top1", "agreement", "mean_cosine", "sqnr_db")
    fields = ("pictures", "source", "content", "float_top1", *figures)
    found: dict[str, Any] = {**dict.fromkeys(fields), "outputs": ()}
    kept = None
    if library is not None:
        kept = read_record(library / EVALUATION, library / LIBRARY_NAME)
    if kept is None or not kept["rows"]:
        return found
    rows = {row["name"]: row for row in kept["rows"]}
    row = rows.get(LIBRARY) or kept["rows"][-1]
    found.update({key: row.get(key) for key in figures})
    found["outputs"] = tuple(OutputScore(**score) for score in row.get("outputs", ()))
    found.update(pictures=row["images"], source=kept["source"], content=kept.get("content"))
    found["float_top1"] = rows.get(FLOAT, {}).get("top1")
    return found


def _times(artifact: Artifact, target: str | None) -> dict[str, Any]:
    kept = read_record(artifact.folder / BENCHMARK, artifact.onnx)
    if kept is None or target is None or kept["target"] != target:
        return {"times_ms": {}, "machine": None}
    times = {
        f"{row['batch']} x {row['threads']}": row["median_ms"]
        for row in kept["rows"]
        if row["name"] == OWN and not row.get("emulated")
    }
    return {"times_ms": times, "machine": kept["machine"] if times else None}
