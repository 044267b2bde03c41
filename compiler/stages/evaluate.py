"""Stage ``evaluate``: accuracy, and closeness to the float model, at every step of the way.

    pictures -> batch of pixels, decoded once -> float, onnxruntime, library, reference -> Scores

What is proven equal is not computed twice: the reference, in NumPy, takes longer than all others
together, and `verify` has shown that the library computes its integers. Unless it is asked for, it
runs on a few pictures, where it must have the library's integers again. The exported file is not
what a device runs: where the float model is known, onnxruntime gets pictures spread over all.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.stages.changes import warn_of_changes
from vitq.compiler.stages.float_reference import float_backend, float_is_known
from vitq.compiler.stages.overlap import Overlap
from vitq.compiler.stages.proof import proven_integers
from vitq.compiler.stages.records import keep_evaluation
from vitq.compiler.stages.scores import FAITHFUL, Row, Scores
from vitq.compiler.stages.verify import IntegersDifferError
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.compiler.support.progress import counted_bar
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.quantization.model.given import GivenModel
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.quantization.pictures.decoding import OpenPictures

logger = logging.getLogger(__name__)

BATCH = 8
CHUNK = 64
"""Pictures that are decoded before the next backend's turn."""
BACKENDS = ("float", "onnxruntime", "reference", "library")
FILE = "onnxruntime"
ORDER = ("float", "onnxruntime", "library", "reference")
SAMPLE = 32
"""Pictures on which the reference runs where nobody has verified the library."""
PROVEN_SAMPLE = 4
"""Likewise where verify has."""
FILE_SAMPLE = 64
"""Pictures on which onnxruntime runs the exported file."""


def evaluate(
    folder: Path,
    pictures: str | GivenPictures | None = None,
    count: int | None = None,
    backends: tuple[str, ...] | None = None,
    threads: int | None = None,
    module: GivenModel | None = None,
    classes: Path | None = None,
    keep: bool = False,
) -> list[Row]:
    """Evaluate a compiled model.

    Args:
        folder: the target's folder.
        pictures: folder, ``.npy`` or in hand; None for the embedded model's held-out digits.
        count: how many, None for all.
        backends: which of `BACKENDS`, each on every picture; ``float`` always runs where it is
            known, as all others are compared with it. None: all that are known, the reference on
            a few pictures; if it has the library's integers there, it takes the others from it;
            and onnxruntime on `FILE_SAMPLE` pictures, which its row is about.
        threads: of the library.
        module: the float model, where it is in hand.
        classes: file with the model's classes (`quantization.pictures.class_names`).
        keep: whether to write what was found beside the library (`compiler.stages.records`).

    Returns:
        One row for each backend.

    Raises:
        VitqError: unknown backend, no pictures, labels that the model cannot give, a float model
            that cannot be loaded any more.
        IntegersDifferError: if the reference, run on a few pictures, has other integers.
    """
    from vitq.quantization.pictures.pictures import EVALUATION, open_pictures

    _refuse_unknown(backends)
    compiled = open_compiled(folder)
    source = pictures or compiled.own_pictures
    if source is None:
        raise VitqError("no pictures to evaluate on: pass --pictures FOLDER (with labels.csv)")
    outputs = compiled.layout.classes
    prep = compiled.preprocessing
    data = open_pictures(source, prep, count, EVALUATION, classes=classes, outputs=outputs)
    warn_of_changes(compiled)
    run = Evaluation(compiled, backends, threads, module)
    rows = run.rows(data)
    if outputs is not None:
        run.say_doubts(outputs, data.source)
    elif data.labels is not None:
        logger.info(
            "evaluate: the labels are left out: the model returns %s, and no logits",
            ", ".join(compiled.layout.names),
        )
    if keep:
        named = data.source if isinstance(pictures, GivenPictures) else pictures
        keep_evaluation(compiled.folder, rows, named, run.content)
    return rows


def _refuse_unknown(backends: tuple[str, ...] | None) -> None:
    unknown = [name for name in backends or () if name not in BACKENDS]
    if unknown:
        hint = nearest(unknown[0], BACKENDS)
        raise VitqError(f"backend {unknown[0]!r} is unknown{hint}: choose {', '.join(BACKENDS)}")


class Evaluation:
    """Backends that see each batch of pictures once.

    Args:
        compiled: the model.
        backends: as in `evaluate`.
        threads: of the library.
        module: the float model, where it is in hand.
    """

    def __init__(
        self,
        compiled: Compiled,
        backends: tuple[str, ...] | None,
        threads: int | None,
        module: GivenModel | None,
    ) -> None:
        self._compiled = compiled
        self._seen = hashlib.sha256()
        self._overlap = Overlap(compiled)
        is_known = float_is_known(compiled, module)
        chosen = backends
        if chosen is None:
            chosen = BACKENDS[1:] if compiled.is_foreign else BACKENDS
        names = [name for name in BACKENDS if name in chosen or (name == "float" and is_known)]
        proven = proven_integers(compiled) if backends is None else 0
        self._sample = None if backends is not None else PROVEN_SAMPLE if proven else SAMPLE
        self._file_sample = FILE_SAMPLE if is_known and backends is None else None
        self._runs = {name: _backend(compiled, name, threads, module) for name in names}
        self._scores = {name: Scores(name, compiled.layout) for name in names}
        if proven:
            logger.info(
                "evaluate: verify found none of %d integers different: the reference runs on %d "
                "pictures and takes the others from the library (--all: runs on all)",
                *(proven, PROVEN_SAMPLE),
            )
        elif self._sample is not None:
            logger.info(
                "evaluate: without a record of verify the reference runs on %d pictures; while "
                "it has the library's integers, it takes the others from it (--all: runs on all)",
                SAMPLE,
            )

    def rows(self, data: "OpenPictures") -> list[Row]:
        """Run all pictures."""
        done, size = 0, max(CHUNK, self._compiled.batch)
        if self._file_sample is not None and self._file_sample < len(data):
            logger.info(
                "evaluate: onnxruntime runs the exported file on %d of %d pictures (--all: on all)",
                *(self._file_sample, len(data)),
            )
        for pixels in counted_bar(data.batches(size), "evaluate", len(data), "picture"):
            labels = None if data.labels is None else data.labels[done : done + len(pixels)]
            self._seen.update(np.ascontiguousarray(pixels).data)
            self._seen.update(b"" if labels is None else labels.astype("<i8").tobytes())
            self._take(pixels, labels, done, len(data))
            self._overlap.add(pixels)
            done += len(pixels)
        self._overlap.say(data.source)
        if self._sample is not None and self._sample < done:
            self._scores["reference"].computed = self._sample
        return [scores.row() for scores in self._scores.values()]

    @property
    def content(self) -> str:
        """Hash of the pixels and labels that were seen."""
        return self._seen.hexdigest()

    def _take(self, pixels: UInt8Array, labels: IntArray | None, done: int, total: int) -> None:
        """Run a batch; `done` of `total` pictures were before it."""
        found: dict[str, FloatArray] = {}
        chosen = {FILE: spread(done, len(pixels), self._file_sample or total, total)}
        names = [name for name in self._runs if name != FILE or len(chosen[FILE])]
        for name in sorted(names, key=ORDER.index):
            started = time.perf_counter()
            if name == "reference" and self._sample is not None:
                found[name] = found["library"]
                self._hold_against_library(pixels[: max(self._sample - done, 0)], found[name])
            else:
                found[name] = self._runs[name](pixels[chosen.get(name, ...)])
            self._scores[name].seconds += time.perf_counter() - started
        for name, logits in found.items():
            rows = chosen.get(name, ...)
            exact, own = (None if x is None else x[rows] for x in (found.get("float"), labels))
            self._scores[name].add(logits, exact, own)

    def _hold_against_library(self, pixels: UInt8Array, logits: FloatArray) -> None:
        """Compare the reference with the library on the first pictures of a batch.

        Raises:
            IntegersDifferError: they have other integers.
        """
        if len(pixels) == 0:
            return
        different = int(np.count_nonzero(self._runs["reference"](pixels) != logits[: len(pixels)]))
        if different:
            raise IntegersDifferError(
                f"{self._compiled.folder}: {different} of {logits[: len(pixels)].size} integers "
                "differ from the reference on these pictures; please report this with the "
                "artifact's metadata.json"
            )

    def say_doubts(self, outputs: int, source: str) -> None:
        """Warn of a model that says one class, and of labels at chance with float answers."""
        if _has_random_weights(self._compiled):
            return
        scores = self._scores.get("float") or next(iter(self._scores.values()))
        if (one := scores.one_answer()) is not None:
            logger.warning(
                "WARNING: %s: %s, and the labels are several (%s): look at the model's weights, "
                "and at mean, std and colours of its input",
                *(source, one, scores.name),
            )
        doubt = scores.label_doubts(outputs)
        others = [row.agreement for row in (s.row() for s in self._scores.values())]
        is_faithful = all(agreement is None or agreement >= FAITHFUL for agreement in others)
        if doubt is None or not is_faithful:
            return
        logger.warning(
            "WARNING: %s: %s, and the answers are the float model's: the labels look shifted or "
            "in another order than the model's classes; give --classes FILE or labels.csv",
            *(source, doubt),
        )


def spread(done: int, size: int, sample: int, total: int) -> IntArray:
    """Choose pictures of a batch, so that `sample` of `total` in all are taken, evenly.

    Args:
        done: pictures before the batch.
        size: of the batch.
        sample: how many of all; all of them if there are fewer.
        total: of all.

    Returns:
        Indices within the batch, int64.
    """
    before = np.arange(done, done + size) * sample // total
    after = np.arange(done + 1, done + size + 1) * sample // total
    return np.flatnonzero((after > before) | (sample >= total))


def _batched(run: Callable[[UInt8Array], FloatArray]) -> Callable[[UInt8Array], FloatArray]:
    """Give a function a few pictures at a time."""

    def batched(pixels: UInt8Array) -> FloatArray:
        starts = range(0, len(pixels), BATCH)
        return np.concatenate([run(pixels[i : i + BATCH]) for i in starts])

    return batched


def _backend(
    compiled: Compiled, name: str, threads: int | None, module: GivenModel | None
) -> Callable[[UInt8Array], FloatArray]:
    if name == "float":
        return _batched(float_backend(compiled, module))
    if name == "onnxruntime":
        from vitq.export.parity import onnx_runner

        return _batched(onnx_runner(open_artifact(compiled.folder).onnx))
    integers = compiled.library(threads) if name == "library" else compiled.reference()
    return lambda pixels: compiled.logits(integers(pixels))


def _has_random_weights(compiled: Compiled) -> bool:
    """Whether the model never learned anything."""
    if compiled.is_foreign:
        return False
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    return facts.get("random_weights") is not None
