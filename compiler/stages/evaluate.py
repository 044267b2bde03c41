"""Stage ``evaluate``: accuracy, and closeness to the float model, at every step of the way."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.stages.float_model import load_float_model
from vitq.compiler.stages.identity import IN_MEMORY, STATE, changed_files, describe_changed
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.quantization.graph.given import GivenModel, GivenPictures
from vitq.quantization.graph.names import freeze
from vitq.quantization.graph.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

BATCH = 8
BACKENDS = ("float", "onnxruntime", "reference", "library")


@dataclass(frozen=True)
class Row:
    """One backend's result.

    Attributes:
        name: of `BACKENDS`.
        images: how many pictures.
        top1: correct first choices, None without labels.
        top5: correct among the first five, None without labels.
        agreement: fraction of pictures with the float model's first choice; this and the next are
            None where the float model is unknown.
        mean_cosine: of the logits with the float model's.
        sqnr_db: signal-to-quantization-noise ratio of the logits, dB; None for the float model.
        seconds: for all pictures, not a benchmark.
    """

    name: str
    images: int
    top1: int | None
    top5: int | None
    agreement: float | None
    mean_cosine: float | None
    sqnr_db: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def evaluate(
    folder: Path,
    pictures: str | GivenPictures | None = None,
    count: int | None = None,
    backends: tuple[str, ...] = BACKENDS,
    threads: int | None = None,
    module: GivenModel | None = None,
) -> list[Row]:
    """Evaluate a compiled model.

    Args:
        folder: the target's folder.
        pictures: folder, ``.npy`` or in hand; None for the embedded model's held-out digits.
        count: how many, None for all.
        backends: which of `BACKENDS`; ``float`` always runs where it is known, as all others are
            compared with it.
        threads: of the library.
        module: the float model, where it is in hand.

    Returns:
        One row for each backend.

    Raises:
        VitqError: unknown backend, no pictures, a float model that cannot be loaded any more.
    """
    from vitq.quantization.graph.pictures import load_pictures

    unknown = [name for name in backends if name not in BACKENDS]
    if unknown:
        hint = nearest(unknown[0], BACKENDS)
        raise VitqError(f"backend {unknown[0]!r} is unknown{hint}: choose {', '.join(BACKENDS)}")
    compiled = open_compiled(folder)
    source = pictures or compiled.own_pictures
    if source is None:
        raise VitqError("no pictures to evaluate on: pass --pictures FOLDER (with labels.csv)")
    data = load_pictures(source, compiled.preprocessing, count, "evaluation")
    names = [name for name in BACKENDS if name in backends]
    if "float" not in backends and _float_is_known(compiled, module):
        names.insert(0, "float")
    rows: list[Row] = []
    float_logits: FloatArray | None = None
    for name in names:
        started = time.perf_counter()
        backend = _backend(compiled, name, threads, module)
        logits = with_progress(backend, data.pixels, name)
        seconds = time.perf_counter() - started
        float_logits = logits if name == "float" else float_logits
        rows.append(row_of(name, logits, float_logits, data.labels, seconds))
    return rows


def with_progress(
    backend: Callable[[UInt8Array], FloatArray], pixels: UInt8Array, name: str
) -> FloatArray:
    """Logits of all pixels (N, C, H, W), a few at a time, with a progress bar."""
    starts = range(0, len(pixels), BATCH)
    bar = progress_bar(starts, name, len(starts))
    return np.concatenate([backend(pixels[i : i + BATCH]) for i in bar])


def _backend(
    compiled: Compiled, name: str, threads: int | None, module: GivenModel | None
) -> Callable[[UInt8Array], FloatArray]:
    if name == "float":
        return _float_backend(compiled, module)
    if name == "onnxruntime":
        from vitq.export.parity import onnx_runner

        return onnx_runner(open_artifact(compiled.folder).onnx)
    integers = compiled.library(threads) if name == "library" else compiled.reference()
    return lambda pixels: compiled.logits(integers(pixels))


def _float_is_known(compiled: Compiled, module: GivenModel | None) -> bool:
    """Whether there is a float model to compare with: not behind a foreign file."""
    if compiled.is_foreign:
        return False
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    return module is not None or IN_MEMORY not in facts


def _float_backend(
    compiled: Compiled, module: GivenModel | None
) -> Callable[[UInt8Array], FloatArray]:
    """Return the original model with its normalization, as a function of pixels."""
    from vitq.quantization.graph import artifact as storage

    folder = open_artifact(compiled.folder).folder
    if compiled.is_foreign:
        raise VitqError(
            f"{folder}: the float model behind a foreign file is unknown: leave float out of the "
            "backends"
        )
    facts = storage.load(folder).provenance
    if module is None:
        return float_runner(float_model(folder)[0], facts["mean"], facts["std"])
    if facts.get(IN_MEMORY) != module.digest:
        raise VitqError(f"{folder} was not quantized from this model: its weights are others")
    return float_runner(module.module, facts["mean"], facts["std"])


def float_runner(
    module: Any, mean: Sequence[float], std: Sequence[float]
) -> Callable[[UInt8Array], FloatArray]:
    """Wrap a ``torch.nn.Module`` with its input normalization, as a function of pixels."""
    import torch

    from vitq.quantization.graph.results import one_tensor

    means, stds = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))

    def run(pixels: UInt8Array) -> FloatArray:
        with torch.inference_mode():
            x = (torch.from_numpy(pixels.copy()) / 255 - means) / stds
            logits: FloatArray = one_tensor(module(x)).numpy()
        return logits

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
        random_weights=facts["random_weights"],
    )
    module = load_float_model(options, prep).module
    if facts.get(STATE, now := module_hash(module)) != now:
        changed = changed_files(facts)
        what = describe_changed(changed or [f"the weights of {facts['model']}"])
        raise VitqError(f"{folder}: {what}")
    return module, prep.input_shape


def row_of(
    name: str,
    logits: FloatArray,
    float_logits: FloatArray | None,
    labels: IntArray | None,
    seconds: float,
) -> Row:
    """Return what logits (N, classes) say, beside the float model's and the labels (N,)."""
    from vitq.export.parity import cosine

    top1 = top5 = None
    if labels is not None:
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        hits = order == labels[:, None]
        top1, top5 = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
    agreement = mean_cosine = sqnr = None
    if float_logits is not None:
        agreement = float((logits.argmax(1) == float_logits.argmax(1)).mean())
        mean_cosine = float(cosine(logits, float_logits).mean())
        sqnr = None if name == "float" else sqnr_db(float_logits, logits)
    return Row(name, len(logits), top1, top5, agreement, mean_cosine, sqnr, round(seconds, 2))


def sqnr_db(signal: FloatArray, approximation: FloatArray) -> float:
    """``10 log10(sum(signal**2) / sum((signal - approximation)**2))`` in dB."""
    noise = float(np.square(signal.astype(np.float64) - approximation).sum())
    power = float(np.square(signal.astype(np.float64)).sum())
    return 10 * float(np.log10(power / max(noise, 1e-30)))


def table_rows(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Cells for a person's table."""
    for row in rows:
        top1, top5 = (
            "-" if n is None else f"{n}/{row.images} ({100 * n / row.images:.1f} %)"
            for n in (row.top1, row.top5)
        )
        sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        yield [
            row.name,
            top1,
            top5,
            "-" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            "-" if row.mean_cosine is None else f"{row.mean_cosine:.4f}",
            sqnr,
            f"{row.seconds:.1f}",
        ]
