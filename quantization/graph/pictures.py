"""Pictures for calibration and evaluation: raw uint8 pixels (N, 3, H, W), labels where known.

Sources: a folder of images (flat, with ``labels.csv`` or not, or one folder for each class as in
ImageFolder), an ``.npy`` of uint8 pixels, or the embedded digits. Where fewer than all are wanted,
draws go round the class folders, and round the classes of a ``labels.csv`` if its order would miss
some. How one picture becomes pixels is `quantization.graph.pixels`'s.
"""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.draws import drawn, drawn_round, misses_classes
from vitq.quantization.graph.given import GivenPictures
from vitq.quantization.graph.pixels import fit_picture, load_picture
from vitq.quantization.graph.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
EMBEDDED = "digits"
CALIBRATION = "calibration"
LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class Pictures:
    """Pixels and what is known of them.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
        source: where they come from, for provenance.
    """

    pixels: UInt8Array
    labels: IntArray | None
    source: str

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pixels)


def load_pictures(
    source: str | GivenPictures,
    prep: Preprocessing,
    limit: int | None,
    embedded_split: str,
    seed: int = 0,
) -> Pictures:
    """Load pictures from any source.

    Args:
        source: a folder, an ``.npy`` file, ``digits``, or pictures in hand.
        prep: what the model's input means.
        limit: how many, None for all.
        embedded_split: ``calibration`` or ``evaluation``, for ``digits``.
        seed: which ones, see `quantization.graph.draws`.

    Returns:
        The pictures.

    Raises:
        VitqError: if the source is missing, empty or unreadable, or the digits are fewer than
            `limit` (a folder that holds fewer is only warned about).
    """
    if limit is not None and limit < 1:
        raise VitqError(f"the number of pictures is {limit}: give at least 1")
    if isinstance(source, GivenPictures):
        return _from_hand(source, prep, limit, seed)
    if source == EMBEDDED:
        return _digits(limit, embedded_split, prep.input_shape, seed)
    path = Path(source)
    if path.suffix == ".npy":
        return _from_npy(path, prep.input_shape, limit, seed)
    if not path.is_dir():
        raise VitqError(f"pictures {source}: no such folder (or .npy file)")
    pictures = _from_folder(path, prep, limit, seed)
    if embedded_split == CALIBRATION:
        _warn_of_one_class(pictures)
    return pictures


def _warn_of_one_class(pictures: Pictures) -> None:
    if pictures.labels is not None and len(set(pictures.labels.tolist())) == 1:
        logger.warning(
            "WARNING: %s: all %d calibration pictures are of one class (%d): the quantized model "
            "may fail on every other one; give pictures of several classes, or more of them",
            *(pictures.source, len(pictures), pictures.labels[0]),
        )


def _digits(
    limit: int | None, split: str, input_shape: tuple[int, int, int], seed: int
) -> Pictures:
    from vitq.models.digits_vit import IMAGE_SIZE
    from vitq.models.digits_vit.data import calibration_images, eval_images, load_digits_split

    if input_shape != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise VitqError(f"the embedded digits do not fit an input of {input_shape}: give pictures")
    try:
        if split == CALIBRATION and seed == 0:
            return Pictures(np.array(calibration_images(limit or 32)), None, EMBEDDED)
        if split == CALIBRATION:
            pool = load_digits_split().train.images
            chosen = drawn(len(pool), limit or 32, seed, EMBEDDED)
            return Pictures(pool[chosen], None, _described(EMBEDDED, seed))
        pixels, labels = eval_images(limit)
    except ValueError as error:
        raise VitqError(f"the embedded digits: {error}") from error
    return Pictures(np.array(pixels), np.array(labels), EMBEDDED)


def _described(source: str, seed: int) -> str:
    return source if seed == 0 else f"{source}, seed {seed}"


def picture_files(source: str, limit: int | None, seed: int = 0) -> list[Path]:
    """Return the files that `load_pictures` would read, to tell whether they changed.

    Raises:
        VitqError: if there is no such source.
    """
    path = Path(source)
    if path.is_dir():
        table = path / LABELS_FILE
        entries = _labelled_files(path)
        files = [entries[i][0] for i in _chosen(path, entries, limit, seed)]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise VitqError(f"{table} names {missing[0].name}, which does not exist")
        return [*files, table] if table.is_file() else files
    if not path.is_file():
        raise VitqError(f"pictures {source}: no such folder (or .npy file)")
    return [path]


def read_pixels(path: Path, input_shape: tuple[int, int, int]) -> UInt8Array:
    """Read raw pixels from an ``.npy`` and check shape and dtype.

    Raises:
        VitqError: not readable, not uint8, or not (N, C, H, W) of the model's size.
    """
    try:
        with path.open("rb") as file:
            pixels = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VitqError(f"{path} cannot be read as an .npy array: {error}") from error
    return check_pixels(pixels, input_shape, str(path))


def _from_hand(given: GivenPictures, prep: Preprocessing, limit: int | None, seed: int) -> Pictures:
    images: Any = given.images
    if isinstance(images, np.ndarray):
        images = check_pixels(images, prep.input_shape, given.source)
    chosen = drawn(len(images), limit, seed, given.source)
    if isinstance(images, np.ndarray):
        pixels = images[chosen]
    elif chosen:
        pixels = np.stack([fit_picture(images[i], prep, f"{given.source}[{i}]") for i in chosen])
    else:
        raise VitqError(f"{given.source} holds no pictures")
    labels = None if given.labels is None else given.labels[chosen].astype(np.int64)
    return Pictures(pixels, labels, _described(given.source, seed))


def _from_npy(
    path: Path, input_shape: tuple[int, int, int], limit: int | None, seed: int
) -> Pictures:
    pixels = read_pixels(path, input_shape)
    chosen = drawn(len(pixels), limit, seed, str(path))
    return Pictures(pixels[chosen], None, _described(str(path), seed))


def _from_folder(folder: Path, prep: Preprocessing, limit: int | None, seed: int) -> Pictures:
    entries = _labelled_files(folder)
    if not entries:
        known = ", ".join(sorted(SUFFIXES))
        raise VitqError(f"{folder} holds no pictures (looked for {known}, also in class folders)")
    if limit is not None and len(entries) < limit:
        logger.warning("%s holds %d pictures, %d were asked for", folder, len(entries), limit)
    chosen = _chosen(folder, entries, limit, seed)
    table = folder / LABELS_FILE
    if table.is_file() and chosen != drawn(len(entries), limit, seed, str(folder)):
        logger.info("%s: its order misses classes, the draw goes round them", table)
    entries = [entries[i] for i in chosen]
    pixels = np.stack([load_picture(path, prep) for path, _ in entries])
    known_labels = [label for _, label in entries]
    labels = None if None in known_labels else np.array(known_labels, np.int64)
    return Pictures(pixels, labels, _described(str(folder), seed))


def _labelled_files(folder: Path) -> list[tuple[Path, int | None]]:
    """Files in a fixed order, with labels from labels.csv or from the class folders' order."""
    table = folder / LABELS_FILE
    if table.is_file():
        return _read_labels(table)
    flat = [(path, None) for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if flat:
        return list(flat)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [
        (path, index)
        for index, name in enumerate(classes)
        for path in sorted(name.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def _chosen(
    folder: Path, entries: list[tuple[Path, int | None]], limit: int | None, seed: int
) -> list[int]:
    """Which of a folder's files are taken; a table keeps its order where that misses no class."""
    classes = [label for _, label in entries]
    first = drawn(len(entries), limit, seed, str(folder))
    if (folder / LABELS_FILE).is_file() and not misses_classes(classes, first):
        return first
    return drawn_round(classes, limit, seed, str(folder))


def _read_labels(table: Path) -> list[tuple[Path, int | None]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
        if rows and not rows[0][1].strip().isdigit():
            rows = rows[1:]  # a heading
        return [(table.parent / row[0], int(row[1])) for row in rows]
    except (IndexError, ValueError) as error:
        raise VitqError(f"{table}: each line needs a file name and a class number") from error


def check_pixels(pixels: UInt8Array, input_shape: tuple[int, int, int], source: str) -> UInt8Array:
    """Raw pixels as a model takes them.

    Args:
        pixels: (N, C, H, W), or one picture (C, H, W).
        input_shape: (C, H, W) of the model.
        source: for the message.

    Returns:
        (N, C, H, W) uint8, contiguous.

    Raises:
        VitqError: not uint8, none, or not of the model's size.
    """
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[1:] != input_shape:
        want = "x".join(map(str, input_shape))
        raise VitqError(f"{source} has shape {pixels.shape}: the model takes N x {want}")
    if pixels.dtype != np.uint8:
        raise VitqError(f"{source} is {pixels.dtype}: the model takes raw pixels, uint8 0 to 255")
    if len(pixels) == 0:
        raise VitqError(f"{source} holds no pictures")
    checked: UInt8Array = np.ascontiguousarray(pixels)
    return checked
