"""Stage ``evaluate``: accuracy, and closeness to the float model, at every step of the way.

    pictures -> batch of pixels, decoded once -> float, onnxruntime, library, reference -> Scores

What is proven equal is not computed twice: the reference, in NumPy, takes longer than all others
together, and `verify` has shown that the library computes its integers. Unless it is asked for, it
runs on a few pictures, where it must have the library's integers again.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.stages.changes import warn_of_changes
from vitq.compiler.stages.float_model import load_float_model
from vitq.compiler.stages.identity import IN_MEMORY, STATE, changed_files, describe_changed
from vitq.compiler.stages.proof import proven_integers
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.records import keep_evaluation
from vitq.compiler.stages.scores import FAITHFUL, Row, Scores
from vitq.compiler.stages.verify import IntegersDifferError
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.compiler.support.progress import counted_bar, progress_bar
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.quantization.graph.class_maps import class_map
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import freeze
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.preprocessing import Preprocessing
from vitq.quantization.plan.output import Output

if TYPE_CHECKING:
    from vitq.quantization.pictures.decoding import OpenPictures

logger = logging.getLogger(__name__)

BATCH = 8
CHUNK = 64
"""Pictures that are decoded before the next backend's turn."""
BACKENDS = ("float", "onnxruntime", "reference", "library")
ORDER = ("float", "onnxruntime", "library", "reference")
SAMPLE = 32
"""Pictures on which the reference runs where nobody has verified the library."""
PROVEN_SAMPLE = 4
"""Likewise where verify has."""


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
            a few pictures; if it has the library's integers there, it takes the others from it.
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
        is_known = _float_is_known(compiled, module)
        chosen = backends
        if chosen is None:
            chosen = BACKENDS[1:] if compiled.is_foreign else BACKENDS
        names = [name for name in BACKENDS if name in chosen or (name == "float" and is_known)]
        proven = proven_integers(compiled) if backends is None else 0
        self._sample = None if backends is not None else PROVEN_SAMPLE if proven else SAMPLE
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
        for pixels in counted_bar(data.batches(size), "evaluate", len(data), "picture"):
            labels = None if data.labels is None else data.labels[done : done + len(pixels)]
            self._seen.update(np.ascontiguousarray(pixels).data)
            self._seen.update(b"" if labels is None else labels.astype("<i8").tobytes())
            self._take(pixels, labels, done)
            done += len(pixels)
        if self._sample is not None and self._sample < done:
            self._scores["reference"].computed = self._sample
        return [scores.row() for scores in self._scores.values()]

    @property
    def content(self) -> str:
        """Hash of the pixels and labels that were seen."""
        return self._seen.hexdigest()

    def _take(self, pixels: UInt8Array, labels: IntArray | None, done: int) -> None:
        """Run a batch; `done` pictures were before it."""
        found: dict[str, FloatArray] = {}
        for name in sorted(self._runs, key=ORDER.index):
            started = time.perf_counter()
            if name == "reference" and self._sample is not None:
                found[name] = found["library"]
                self._hold_against_library(pixels[: max(self._sample - done, 0)], found[name])
            else:
                found[name] = self._runs[name](pixels)
            self._scores[name].seconds += time.perf_counter() - started
        for name, logits in found.items():
            self._scores[name].add(logits, found.get("float"), labels)

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


def with_progress(
    backend: Callable[[UInt8Array], FloatArray], pixels: UInt8Array, name: str
) -> FloatArray:
    """Logits of all pixels (N, C, H, W), a few at a time, with a progress bar."""
    starts = range(0, len(pixels), BATCH)
    bar = progress_bar(starts, name, len(starts))
    return np.concatenate([backend(pixels[i : i + BATCH]) for i in bar])


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
        return _batched(_float_backend(compiled, module))
    if name == "onnxruntime":
        from vitq.export.parity import onnx_runner

        return _batched(onnx_runner(open_artifact(compiled.folder).onnx))
    integers = compiled.library(threads) if name == "library" else compiled.reference()
    return lambda pixels: compiled.logits(integers(pixels))


def _float_is_known(compiled: Compiled, module: GivenModel | None) -> bool:
    """Whether there is a float model to compare with: not behind a foreign file."""
    if compiled.is_foreign:
        return False
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    return module is not None or IN_MEMORY not in facts


def _has_random_weights(compiled: Compiled) -> bool:
    """Whether the model never learned anything."""
    if compiled.is_foreign:
        return False
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    return facts.get("random_weights") is not None


def _float_backend(
    compiled: Compiled, module: GivenModel | None
) -> Callable[[UInt8Array], FloatArray]:
    """Return the original model with its normalization, as a function of pixels."""
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.model.results import with_features

    folder = open_artifact(compiled.folder).folder
    if compiled.is_foreign:
        raise VitqError(
            f"{folder}: the float model behind a foreign file is unknown: leave float out of the "
            "backends"
        )
    facts = storage.load(folder).provenance
    output = Output(facts.get("output", Output.CODES))
    if module is None:
        return float_runner(float_model(folder)[0], facts["mean"], facts["std"], output)
    if facts.get(IN_MEMORY) != module.digest:
        raise VitqError(f"{folder} was not quantized from this model: its weights are others")
    chosen = with_features(module.module, facts.get("output_features", ()))
    return float_runner(chosen, facts["mean"], facts["std"], output)


def float_runner(
    module: Any, mean: Sequence[float], std: Sequence[float], output: Output = Output.CODES
) -> Callable[[UInt8Array], FloatArray]:
    """Wrap a ``torch.nn.Module`` with its normalization and output, as a function of pixels."""
    import torch

    from vitq.quantization.graph.outputs import join
    from vitq.quantization.model.results import taken_tensors

    means, stds = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))

    def run(pixels: UInt8Array) -> FloatArray:
        with torch.inference_mode():
            x = (torch.from_numpy(pixels.copy()) / 255 - means) / stds
            results = [value.numpy() for value in taken_tensors(module(x)).values()]
        if output is Output.ARGMAX:
            results = [class_map(value) for value in results]
        return join(results, len(pixels))

    return run


def float_model(folder: Path) -> tuple[Any, tuple[int, int, int]]:
    """Return the original model, loaded again from where the quantizer found it.

    Args:
        folder: of the artifact.

    Returns:
        The ``torch.nn.Module`` and its input shape (C, H, W).

    Raises:
        VitqError: if its weights or its code are not there any more, or make another model now.
    """
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.graph.identity import module_hash

    facts = storage.load(folder).provenance
    if IN_MEMORY in facts:
        raise VitqError(
            f"{folder}: its float model was in memory and no file holds it: leave float out of "
            "the backends, or give the model in Python: vitq.load(folder, model=model)"
        )
    weights = facts["weights"]
    prep = Preprocessing.from_json(facts["preprocessing"], folder / QUANTIZE_NAME)
    options = QuantizeOptions(
        model=facts["model"],
        weights=None if weights is None else Path(weights),
        weights_key=facts.get("weights_key"),
        num_classes=facts.get("num_classes"),
        model_kwargs=freeze(facts.get("model_kwargs")),
        output_features=tuple(facts.get("output_features", ())),
        random_weights=facts["random_weights"],
    )
    module = load_float_model(options, prep).module
    if facts.get(STATE, now := module_hash(module)) != now:
        changed = changed_files(facts)
        what = describe_changed(changed or [f"the weights of {facts['model']}"])
        raise VitqError(f"{folder}: {what}")
    return module, prep.input_shape
