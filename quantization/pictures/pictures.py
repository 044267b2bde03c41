"""Pictures for calibration and evaluation: raw uint8 pixels (N, C, H, W), labels where known.

Sources: a folder (`quantization.pictures.listing`), an ``.npy`` of uint8 pixels
(`quantization.pictures.raw_pixels`), pictures in hand, or an embedded set
(`quantization.pictures.embedded`). Which are taken
where fewer than all are wanted says `quantization.pictures.draws`; how one becomes pixels,
`quantization.pictures.pixels`.

    open_pictures -> OpenPictures   nothing is decoded yet, `quantization.pictures.decoding`
    load_pictures -> Pictures       all pixels in memory, for calibration
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.decoding import OpenPictures, Pictures
from vitq.quantization.pictures.described import say_assumed, standard
from vitq.quantization.pictures.draws import drawn, drawn_in_order, drawn_round
from vitq.quantization.pictures.embedded import CALIBRATION, EMBEDDED, open_embedded
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.listing import Listing, Origin, list_pictures, matched
from vitq.quantization.pictures.pixels import fit_picture, load_picture
from vitq.quantization.pictures.preprocessing import Preprocessing
from vitq.quantization.pictures.raw_pixels import (
    check_pixels,
    labels_file,
    open_pixels,
    read_labels,
)
from vitq.quantization.pictures.tables import SUFFIXES

logger = logging.getLogger(__name__)

EVALUATION = "evaluation"


def load_pictures(
    source: str | GivenPictures,
    prep: Preprocessing | tuple[int, int, int],
    limit: int | None,
    embedded_split: str,
    seed: int = 0,
) -> Pictures:
    """Load pictures from any source; arguments and errors are those of `open_pictures`."""
    pictures = open_pictures(source, prep, limit, embedded_split, seed).load()
    if embedded_split == CALIBRATION and isinstance(source, str):
        _warn_of_one_class(pictures)
    return pictures


def open_pictures(
    source: str | GivenPictures,
    prep: Preprocessing | tuple[int, int, int],
    limit: int | None,
    embedded_split: str,
    seed: int = 0,
    classes: Path | None = None,
    outputs: int | None = None,
    is_said: bool = True,
) -> OpenPictures:
    """Find pictures of any source.

    Args:
        source: a folder, an ``.npy`` file, ``digits`` or ``scenes``, or pictures in hand.
        prep: what the model's input means; a shape (C, H, W) alone stands for what is usual.
        limit: how many, None for all.
        embedded_split: ``calibration`` or ``evaluation``, for embedded ones.
        seed: which ones, see `quantization.pictures.draws`.
        classes: file with the model's classes (`quantization.pictures.class_names`), for a folder.
        outputs: how many classes the model has; None to leave the labels unchecked.
        is_said: whether to warn of what is unusual in the source.

    Returns:
        The pictures.

    Raises:
        VitqError: if the source is missing, empty or unreadable, its labels do not fit the model,
            or embedded ones are fewer than `limit` (a folder that holds fewer is only warned of).
    """
    if limit is not None and limit < 1:
        raise VitqError(f"the number of pictures is {limit}: give at least 1")
    if isinstance(prep, tuple):
        prep = standard(prep, (0.5,) * prep[0], (0.5,) * prep[0])
    if isinstance(source, GivenPictures):
        found = _from_hand(source, prep, limit, seed)
    elif source in EMBEDDED:
        found = open_embedded(source, limit, embedded_split, prep.input_shape, seed)
    elif Path(source).suffix == ".npy":
        found = _from_npy(Path(source), prep.input_shape, limit, seed)
    else:
        return _from_folder(Path(source), prep, limit, seed, classes, outputs, is_said)
    if classes is not None:
        raise VitqError(f"{found.source} has no class folders or names: leave --classes out")
    if outputs is not None and found.labels is not None:
        _check_numbers(found.labels, outputs, found.source)
    return found


def check_source(source: str, classes: Path | None = None) -> None:
    """Refuse a source that cannot be opened, before long work begins.

    Args:
        source: a folder, an ``.npy`` file, ``digits`` or ``scenes``.
        classes: file with the model's classes.

    Raises:
        VitqError: it is missing or empty, or its labels cannot be read.
    """
    path = Path(source)
    if source in EMBEDDED:
        return
    if not path.is_dir():
        picture_files(source, None)
        return
    _listed(path, classes)


def _listed(folder: Path, classes: Path | None) -> Listing:
    """List a folder that holds pictures."""
    listing = list_pictures(folder, classes)
    if not listing.entries:
        known = ", ".join(sorted(SUFFIXES))
        raise VitqError(f"{folder} holds no pictures (looked for {known}, also in class folders)")
    return listing


def _check_numbers(labels: IntArray, outputs: int, source: str) -> None:
    for place, label in enumerate(labels.tolist()):
        if not 0 <= label < outputs:
            raise VitqError(
                f"{source}: the label of picture {place} is {label}, but the model has {outputs} "
                f"outputs: classes 0 to {outputs - 1}"
            )


def _warn_of_one_class(pictures: Pictures) -> None:
    if pictures.labels is not None and len(set(pictures.labels.tolist())) == 1:
        logger.warning(
            "WARNING: %s: all %d calibration pictures are of one class (%d): the quantized model "
            "may fail on every other one; give pictures of several classes, or more of them",
            *(pictures.source, len(pictures), pictures.labels[0]),
        )


def _described(source: str, seed: int) -> str:
    return source if seed == 0 else f"{source}, seed {seed}"


def picture_files(source: str, limit: int | None, seed: int = 0) -> list[Path]:
    """Return the files that `load_pictures` would read, to tell whether they changed.

    Raises:
        VitqError: if there is no such source.
    """
    path = Path(source)
    if path.is_dir():
        listing = list_pictures(path)
        chosen = [listing.entries[i] for i in _chosen(listing, limit, seed)]
        for entry in chosen:
            if not entry.file.is_file():
                raise VitqError(
                    f"{entry.place or path} names {entry.file.name}, which does not exist"
                )
        return [*(entry.file for entry in chosen), *listing.files]
    if not path.is_file():
        raise VitqError(f"pictures {source}: no such folder (or .npy file)")
    labels = labels_file(path)
    return [path] if labels is None else [path, labels]


def folder_files(folder: Path) -> list[Path]:
    """Return the files of all pictures in a folder, in the order of `open_pictures`."""
    listing = list_pictures(folder)
    return [listing.entries[i].file for i in _chosen(listing, None, 0)]


def _from_hand(
    given: GivenPictures, prep: Preprocessing, limit: int | None, seed: int
) -> OpenPictures:
    images: Any = given.images
    if isinstance(images, np.ndarray):
        images = check_pixels(images, prep.input_shape, given.source)
    if len(images) == 0:
        raise VitqError(f"{given.source} holds no pictures")
    labels, name = given.labels, given.source
    if not isinstance(images, np.ndarray):
        say_assumed(prep, name)
    chosen = _chosen_of_array(labels, len(images), limit, seed, name)

    def read(place: int) -> UInt8Array:
        index = chosen[place]
        if isinstance(images, np.ndarray):
            pixels: UInt8Array = images[index]
            return pixels
        return fit_picture(images[index], prep, f"{name}[{index}]")

    labels = None if labels is None else labels[chosen].astype(np.int64)
    described = _described(name, seed)
    return OpenPictures(len(chosen), labels, described, read, prep.input_shape)


def _from_npy(
    path: Path, input_shape: tuple[int, int, int], limit: int | None, seed: int
) -> OpenPictures:
    number, read = open_pixels(path, input_shape)
    beside = labels_file(path)
    labels = None if beside is None else read_labels(beside, number)
    if beside is not None:
        used = "are not used: another number than" if labels is None else "are the labels of"
        logger.info("%s: %s the pictures in %s", beside, used, path.name)
    chosen = _chosen_of_array(labels, number, limit, seed, str(path))
    labels = None if labels is None else labels[chosen]
    files = (path,) if beside is None else (path, beside)
    return OpenPictures(
        len(chosen),
        labels,
        _described(str(path), seed),
        lambda place: read(chosen[place]),
        input_shape,
        files=files,
    )


def _chosen_of_array(
    labels: IntArray | None, number: int, limit: int | None, seed: int, source: str
) -> list[int]:
    if labels is not None:
        return drawn_in_order(labels.tolist(), limit, seed, source)
    chosen = drawn(number, limit, seed, source)
    _say_spaced(source, chosen, number, seed)
    return chosen


def _say_spaced(source: str, chosen: list[int], number: int, seed: int) -> None:
    if seed == 0 and len(chosen) < number:
        logger.info("%s: %d of %d pictures, evenly spaced", source, len(chosen), number)


def _from_folder(
    folder: Path,
    prep: Preprocessing,
    limit: int | None,
    seed: int,
    classes: Path | None,
    outputs: int | None,
    is_said: bool,
) -> OpenPictures:
    if not folder.is_dir():
        raise VitqError(f"pictures {folder}: no such folder (or .npy file)")
    listing = _listed(folder, classes)
    if outputs is not None:
        listing = matched(listing, outputs)
    chosen = _chosen(listing, limit, seed)
    if is_said:
        _say(listing, chosen, limit, seed)
        say_assumed(prep, str(folder))
    entries = [listing.entries[i] for i in chosen]
    labels = None if listing.labels is None else listing.labels[chosen]

    def read(place: int) -> UInt8Array:
        file = entries[place].file
        if not file.exists() and listing.origin is Origin.TABLE:
            raise VitqError(f"{entries[place].place} names {file}, which does not exist")
        return load_picture(file, prep)

    files = (*(entry.file for entry in entries), *listing.files)
    described = _described(str(folder), seed)
    names = listing.names
    return OpenPictures(len(entries), labels, described, read, prep.input_shape, names, files)


def _say(listing: Listing, chosen: list[int], limit: int | None, seed: int) -> None:
    number = len(listing.entries)
    for note in listing.notes:
        logger.warning("%s", note)
    if limit is not None and number < limit:
        logger.warning("%s holds %d pictures, %d were asked for", listing.folder, number, limit)
    if listing.origin is Origin.NONE:
        _say_spaced(str(listing.folder), chosen, number, seed)
    in_order = list(range(number))[:limit]
    if listing.origin is Origin.TABLE and seed == 0 and chosen != in_order:
        table = listing.files[0]
        logger.info("%s: its order misses classes, the draw goes round them", table)


def _chosen(listing: Listing, limit: int | None, seed: int) -> list[int]:
    """Which of a folder's files are taken; a table keeps its order where that misses no class."""
    source = str(listing.folder)
    if listing.origin is Origin.NONE:
        return drawn(len(listing.entries), limit, seed, source)
    draw = drawn_in_order if listing.origin is Origin.TABLE else drawn_round
    return draw(listing.classes, limit, seed, source)
