"""Stage ``compare-methods``: methods x widths x calibration sources on one model.

Every cell is calibrated on the same number of pictures and evaluated on the same pictures, and kept
when it is done, so that a run of many hours can be stopped and goes on where it was:

    artifacts/<model>/comparison/<hash>.json

The hash is that of everything that decides the cell: model, weights, options, code, pictures.
"""

import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.stages.evaluate import BATCH
from vitq.compiler.stages.float_reference import float_runner, load_float_model
from vitq.compiler.stages.identity import model_content, quantize_fingerprint
from vitq.compiler.stages.quantize import quantized_model
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.scores import Row, row_of
from vitq.compiler.stages.verify import IntegersDifferError
from vitq.compiler.studies.backends import BACKENDS
from vitq.compiler.studies.cell import Cell
from vitq.compiler.studies.spread import Summary, summarize
from vitq.compiler.support.artifacts import (
    fingerprint,
    is_current,
    read_json,
    source_hash,
    versions,
    write_json,
)
from vitq.compiler.support.embedded import EMBEDDED_MODELS, own_pictures
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.numerics.files import require_file
from vitq.quantization.graph.outputs import OutputLayout
from vitq.quantization.pictures.given import GivenPictures

logger = logging.getLogger(__name__)

FLOAT = "float"
LIBRARY = "library"
HELD_BYTES = 1 << 28
"""Of pictures to evaluate on that stay in memory, decoded: 1,783 of 3 x 224 x 224."""
LIBRARY_PACKAGES = ("numerics", "quantization", "export", "relay_passes", "compiler")


@dataclass(frozen=True)
class Comparison:
    """All cells of one model.

    Attributes:
        model: its name.
        backend: of `BACKENDS`.
        float_row: the float model's result.
        cells: in the order of the options.
    """

    model: str
    backend: str
    float_row: Row
    cells: list[Cell]

    @property
    def summaries(self) -> list[Summary]:
        """One for each combination, over all seeds."""
        return summarize(self.cells)

    def to_json(self) -> dict[str, Any]:
        """All fields, and the summaries."""
        return asdict(self) | {"summaries": [summary.to_json() for summary in self.summaries]}


def compare_methods(
    variants: list[QuantizeOptions],
    pictures: str | GivenPictures | None = None,
    count: int | None = None,
    backend: str = "fake",
) -> Comparison:
    """Quantize and evaluate every variant of one model.

    Args:
        variants: the same model with different methods, recipes, calibration sources and seeds.
        pictures: folder, ``.npy`` or in hand; None for the embedded model's held-out digits.
        count: how many, None for all.
        backend: ``fake`` (quantizers simulated around float operators: fast, for exploring) or
            ``reference`` (the integers that a library computes), or ``library``, compiled for this
            machine, verified, and run.

    Returns:
        The comparison; a variant that cannot be quantized is a cell that says why.

    Raises:
        VitqError: unknown backend, no pictures, a model that cannot be loaded, or a library that
            does not compute the reference's integers.
    """
    if backend not in BACKENDS:
        hint = nearest(backend, BACKENDS)
        raise VitqError(f"--backend {backend!r}{hint}: choose {', '.join(BACKENDS)}")
    first = variants[0]
    source = pictures or (own_pictures(first.model) if first.model in EMBEDDED_MODELS else None)
    if source is None:
        raise VitqError("no pictures to evaluate on: pass --pictures FOLDER (with labels.csv)")
    for options in variants:
        _ = options.calibration_source  # a missing one should not cost the cells before it
    judge = _Judge(first, source, count)
    key = judge.key(FLOAT, fingerprint(model_content(first)))
    float_row = _kept(first, key, lambda: judge.row(FLOAT, judge.float_logits()))
    bar = progress_bar(variants, "compare", len(variants), "cell")
    cells = [_cell(options, judge, backend) for options in bar]
    return Comparison(first.model, backend, float_row, cells)


class _Judge:
    """The pictures to evaluate on, and the float model's logits of them."""

    def __init__(
        self, options: QuantizeOptions, source: str | GivenPictures, count: int | None
    ) -> None:
        from vitq.quantization.graph.identity import module_hash
        from vitq.quantization.pictures.pictures import EVALUATION, open_pictures

        self._model = model = load_float_model(options)
        prep = model.preprocessing
        self._float = float_runner(model.module, prep.mean, prep.std)
        self.source = source
        outputs = self._float(np.zeros((1, *prep.input_shape), np.uint8)).shape[-1]
        self.data = open_pictures(source, prep, count, EVALUATION, outputs=outputs)
        size = len(self.data) * math.prod(self.data.shape)
        self._held = self.data.load().pixels if size <= HELD_BYTES else None
        labels = [] if self.data.labels is None else self.data.labels.tolist()
        seen = hashlib.sha256()
        for batch in self.batches():
            seen.update(np.ascontiguousarray(batch).data)
        self._content = fingerprint({
            "float": module_hash(model.module),
            "pixels": seen.hexdigest(),
            "labels": labels,
        })
        self._logits: FloatArray | None = None

    def batches(self) -> Iterator[UInt8Array]:
        """Yield the pictures, `BATCH` at a time: many are decoded anew for each cell."""
        if self._held is None:
            yield from self.data.batches(BATCH)
            return
        for start in range(0, len(self._held), BATCH):
            yield self._held[start : start + BATCH]

    def logits(self, run: Callable[[UInt8Array], FloatArray], title: str) -> FloatArray:
        """Return what a backend says of all pictures, with a progress bar."""
        number = -(-len(self.data) // BATCH)
        return np.concatenate([run(batch) for batch in progress_bar(self.batches(), title, number)])

    def key(self, backend: str, model: str) -> str:
        """Fingerprint of a cell; `model` is that of the model."""
        content = {"backend": backend, "model": model, "pictures": self._content}
        if backend == LIBRARY:
            content["compiler"] = source_hash(LIBRARY_PACKAGES)
            content["versions"] = fingerprint(versions(("apache-tvm", "apache-tvm-ffi", "onnx")))
        return fingerprint(content)

    def float_logits(self) -> FloatArray:
        """Float logits of all pictures, computed once."""
        if self._logits is None:
            self._logits = self.logits(self._float, FLOAT)
        return self._logits

    def row(self, name: str, logits: FloatArray, seconds: float = 0.0) -> Row:
        """One cell's result."""
        wanted, layout = self.float_logits(), self._layout
        return row_of(name, logits, wanted, self.data.labels, seconds, layout)

    @functools.cached_property
    def _layout(self) -> OutputLayout:
        """Names and shapes of the model's results."""
        from vitq.quantization.graph.tracing import trace

        return trace(self._model.module, self._model.preprocessing.input_shape).layout


def _cell(options: QuantizeOptions, judge: _Judge, backend: str) -> Cell:
    """One cell, from its file or computed; a refusal is not kept."""
    key = judge.key(backend, quantize_fingerprint(options))
    names = (options.calibration_name, options.recipe_name, options.method.name)
    seed = options.calib_seed
    title = " ".join(names) + (f", seed {seed}" if seed else "")

    def compute() -> Row:
        started = time.perf_counter()
        run = BACKENDS[backend](quantized_model(options), judge.source)
        logits = judge.logits(run, title)
        return judge.row(title, logits, time.perf_counter() - started)

    try:
        return Cell(*names, _kept(options, key, compute), seed=seed)
    except IntegersDifferError:
        raise
    except VitqError as error:
        logger.warning("compare: %s is refused: %s", title, error)
        return Cell(*names, None, str(error), seed)


def _kept(options: QuantizeOptions, key: str, compute: Callable[[], Row]) -> Row:
    """Read a result from its file, or compute and write it."""
    path = _folder(options) / f"{key[:16]}.json"
    if is_current(path, key):
        return Row.from_json(read_json(path)["row"])
    require_file(path)
    row = compute()
    write_json(path, {"fingerprint": key, "row": row.to_json()})
    logger.info("compare: %s (%.1f s)", row.name, row.seconds)
    return row


def _folder(options: QuantizeOptions) -> Path:
    return options.artifact.folder.parent / "comparison"
