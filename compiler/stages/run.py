"""Stage ``run``: pictures or raw pixels in; logits, integers, or the best classes out.

    source (picture, folder of them, .npy) -> chunks of uint8 (n, C, H, W) -> integers -> logits
                                                                                 -> best classes

Chunks hold a few pictures, so that a folder of any size takes bounded memory. Probabilities are the
softmax of the float32 logits: of a model that was not trained with a softmax they order the classes
and mean nothing else.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitq.compiler.codegen.compiled import Backend, Compiled, open_compiled
from vitq.compiler.deploy.contents import class_names
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError, nearest
from vitq.numerics.files import require_file, write_atomically
from vitq.quantization.pictures.pictures import picture_files
from vitq.quantization.pictures.pixels import load_picture
from vitq.quantization.pictures.raw_pixels import check_pixels, read_pixels
from vitq.quantization.pictures.tables import SUFFIXES, is_picture

logger = logging.getLogger(__name__)

CHUNK = 8
TOP = 5


class Integers(NamedTuple):
    """Integer logits, and what they mean: ``logits = (codes - zero_point) * scale``.

    Attributes:
        codes: (N, classes), of the dtype that the library returns.
        scale: real value of one step.
        zero_point: code of real 0.
    """

    codes: IntArray
    scale: float
    zero_point: int


class Guess(NamedTuple):
    """One class of an answer.

    Attributes:
        number: of the class, from 0.
        name: of the class, where names are known.
        logit: real value.
        probability: softmax over all classes.
    """

    number: int
    name: str | None
    logit: float
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    Attributes:
        picture: file, or file and row of an array.
        best: the best classes, the best one first.
    """

    picture: str
    best: tuple[Guess, ...]

    def to_json(self) -> dict[str, Any]:
        """Return picture and classes."""
        keys = ("class", "name", "logit", "probability")
        classes = [dict(zip(keys, guess, strict=True)) for guess in self.best]
        return {"picture": self.picture, "classes": classes}


def infer(
    compiled: Compiled,
    backend: Callable[[UInt8Array], IntArray],
    pixels: UInt8Array,
    source: str = "the array",
) -> dict[str, Integers]:
    """Run pictures through a compiled model, without a file.

    Args:
        compiled: the model.
        backend: of `compiler.codegen.compiled.Compiled.backend`.
        pixels: (N, C, H, W) uint8, any N >= 1.
        source: what the pixels are called in a message.

    Returns:
        The integers of each result, by name: ``logits`` of a classifier.

    Raises:
        VitqError: wrong shape or dtype.
    """
    return integers(compiled, _rows(compiled, backend, pixels, source))


def _rows(
    compiled: Compiled,
    backend: Callable[[UInt8Array], IntArray],
    pixels: UInt8Array,
    source: str,
) -> IntArray:
    channels, height, width = compiled.input_shape[1:]
    return backend(check_pixels(pixels, (channels, height, width), source))


def integers(compiled: Compiled, rows: IntArray) -> dict[str, Integers]:
    """Return what rows of a backend mean, by name."""
    found = {}
    for name, codes in compiled.layout.split(rows).items():
        output = compiled.outputs[name]
        scale, zero_point = float(output["scale"]), output["zero_point"]
        found[name] = Integers(codes.astype(output["dtype"]), scale, zero_point)
    return found


def run(
    folder: Path,
    input_path: Path,
    output_path: Path,
    raw: bool = False,
    backend: Backend = "library",
    threads: int | None = None,
    result: str | None = None,
) -> tuple[int, ...]:
    """Run the stage: logits, or all results, into a file.

    Args:
        folder: the target's folder.
        input_path: ``.npy``, (N, C, H, W) uint8, any N; a picture; or a folder of pictures.
        output_path: ``.npy``; (N, classes) float32 logits, or the integer codes. ``.npz`` of all
            results, by name.
        raw: write the integers.
        backend: ``library`` or ``reference``.
        threads: of the library.
        result: name of the one that a ``.npy`` holds; None for the only one.

    Returns:
        The shape of the first result that was written.

    Raises:
        VitqError: wrong shape or dtype, no picture, nothing compiled, or a result that there is
            not.
    """
    compiled = open_compiled(folder)
    chosen = _chosen(compiled, output_path, result)
    require_file(output_path)
    chunks = list(_codes(compiled, [input_path], backend, threads))
    rows = np.concatenate([codes for _, codes in chunks])
    found: dict[str, FloatArray | IntArray] = dict(compiled.reals(rows))
    if raw:
        found = {name: each.codes for name, each in integers(compiled, rows).items()}
    buffer = BytesIO()
    if output_path.suffix == ".npz":
        arrays: dict[str, Any] = {name: found[name] for name in chosen}
        np.savez(buffer, **arrays)
    else:
        np.save(buffer, found[chosen[0]], allow_pickle=False)
    write_atomically(output_path, buffer.getvalue())
    for name in chosen:
        which = f"{name} " if len(chosen) > 1 else ""
        shape, dtype = "x".join(map(str, found[name].shape)), found[name].dtype
        logger.info("run: %s, %s%s %s", output_path, which, shape, dtype)
    shape_of_first: tuple[int, ...] = found[chosen[0]].shape
    return shape_of_first


def _chosen(compiled: Compiled, output_path: Path, result: str | None) -> tuple[str, ...]:
    """Names of the results to write.

    Raises:
        VitqError: an unknown name, or several results for a file of one.
    """
    names = compiled.layout.names
    if result is not None and result not in names:
        raise VitqError(
            f"--result {result!r}{nearest(result, names)}: the model returns {', '.join(names)}"
        )
    if result is None and len(names) > 1 and output_path.suffix != ".npz":
        raise VitqError(
            f"the model returns {', '.join(names)}: give --output FILE.npz for all of them, or "
            "--result NAME for one"
        )
    return names if result is None else (result,)


def classify(
    folder: Path,
    sources: Sequence[Path],
    top: int = TOP,
    labels: Path | None = None,
    backend: Backend = "library",
    threads: int | None = None,
) -> Iterator[Answer]:
    """Run the stage: the best classes of each picture, as they come.

    Args:
        folder: the target's folder.
        sources: pictures, folders of pictures (with class folders or not), ``.npy``.
        top: how many classes.
        labels: text file with a class name on each line; the embedded model has its own.
        backend: ``library`` or ``reference``.
        threads: of the library.

    Yields:
        One answer for each picture.

    Raises:
        VitqError: no picture, one that cannot be read, names that do not fit, nothing compiled.
    """
    if top < 1:
        raise VitqError(f"--top {top}: give at least 1")
    compiled = open_compiled(folder)
    names = class_names(compiled, labels)
    if compiled.layout.classes is None:
        raise VitqError(
            f"{compiled.folder} ranks no classes: it returns {', '.join(compiled.layout.names)}: "
            "write them with --output FILE.npz"
        )
    for pictures, codes in _codes(compiled, sources, backend, threads):
        for picture, logits in zip(
            pictures, compiled.reals(codes)[compiled.layout.logits], strict=True
        ):
            yield Answer(picture, best_classes(logits, names, top))


def best_classes(logits: FloatArray, names: Sequence[str] | None, top: int) -> tuple[Guess, ...]:
    """Return the best of (classes,) logits; of equal ones the first."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    shares = weights / weights.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return tuple(
        Guess(int(i), names[i] if names else None, float(logits[i]), float(shares[i]))
        for i in order
    )


def _codes(
    compiled: Compiled, sources: Sequence[Path], backend: Backend, threads: int | None
) -> Iterator[tuple[list[str], IntArray]]:
    """Yield names and codes, (n, classes) or rows, of a few pictures at a time."""
    compiled.require_current()
    runs = compiled.backend(backend, threads)
    for source in sources:
        for names, pixels in _chunks(compiled, source):
            yield names, _rows(compiled, runs, pixels, str(source))


def _chunks(compiled: Compiled, source: Path) -> Iterator[tuple[list[str], UInt8Array]]:
    """Yield names and pixels (n, C, H, W) of a few pictures at a time."""
    size = max(CHUNK, compiled.batch)
    if not source.exists():
        raise VitqError(f"{source} is not there: name pictures, folders of them, or .npy files")
    if source.suffix == ".npy" or not (source.is_dir() or source.suffix.lower() in SUFFIXES):
        channels, height, width = compiled.input_shape[1:]
        pixels = read_pixels(source, (channels, height, width))
        for start in range(0, len(pixels), size):
            rows = pixels[start : start + size]
            yield [f"{source}[{start + row}]" for row in range(len(rows))], rows
        return
    files = picture_files(str(source), None) if source.is_dir() else [source]
    files = [file for file in files if is_picture(file)]
    if not files:
        raise VitqError(f"{source} holds no pictures")
    for start in range(0, len(files), size):
        some = files[start : start + size]
        yield (
            list(map(str, some)),
            np.stack([load_picture(f, compiled.preprocessing) for f in some]),
        )
