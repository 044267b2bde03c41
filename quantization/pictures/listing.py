"""The pictures of a folder, in a fixed order, and the class of each.

    folder/                              labels
        labels.csv                       what it says (`quantization.pictures.tables`)
        a.jpg  b.jpg                     none: a flat folder
        cat/*.jpg  dog/*.jpg             the names' places in the order of text: 0, 1 (ImageFolder)
        0/*.jpg  1/*.jpg  10/*.jpg       the numbers: all names are some
        classes.txt | class_to_idx.json  beside class folders: the numbers that it gives them

Hidden folders and files are some program's own, a folder without pictures is no class, and a folder
of both kinds is taken for what most of its pictures say. Each is said. Numbers by place are right
only where each class has its folder: `matched` holds them against the model's outputs.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.class_names import CLASSES_FILES, ClassMap, read_classes
from vitq.quantization.pictures.tables import LABELS_FILE, LARGEST, Entry, is_picture, read_table

REMEDY = (
    "give --classes FILE (class names in the model's order), folders named by number, or labels.csv"
)
IMAGENET = 1000
_SHOWN = 3
_SYNSET = re.compile(r"n[0-9]{8}")
_NUMBERED = re.compile(r"([0-9]+)[^0-9]")


class Origin(StrEnum):
    """How labels are known."""

    NONE = "none"
    TABLE = "table"
    NUMBERS = "numbers"
    PLACES = "places"
    CLASSES = "classes"


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        folder: itself.
        entries: its pictures; all have labels, or none.
        origin: of the labels.
        names: of classes, by number, as far as known.
        files: beside the pictures, what decides the labels.
        notes: what its owner should know, a sentence each.
    """

    folder: Path
    entries: tuple[Entry, ...]
    origin: Origin
    names: dict[int, str]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> IntArray | None:
        """(N,) int64, or None."""
        known = [entry.label for entry in self.entries if entry.label is not None]
        return np.array(known, np.int64) if known else None

    @property
    def classes(self) -> list[int | None]:
        """Class of each picture."""
        return [entry.label for entry in self.entries]


def list_pictures(folder: Path, classes: Path | None = None) -> Listing:
    """List a folder's pictures.

    Args:
        folder: with or without ``labels.csv``, flat or of class folders.
        classes: file with the model's classes, for names of folders or in ``labels.csv``.

    Returns:
        The pictures; the files of a table need not exist.

    Raises:
        VitqError: a table or list of classes that is damaged, or class folders that it lacks.
    """
    known = None if classes is None else read_classes(classes)
    table = folder / LABELS_FILE
    if table.is_file():
        return _of_table(folder, table, known)
    paths = sorted(folder.iterdir())
    flat = [Entry(path) for path in paths if is_picture(path) and path.is_file()]
    hidden = [path for path in paths if path.name.startswith(".")]
    folders = [path for path in paths if path.is_dir() and path not in hidden]
    inside = {path: _pictures_in(path) for path in folders}
    full = [path for path in folders if inside[path]]
    notes = [*_left_out(folder, "empty", [path for path in folders if not inside[path]])]
    notes += _left_out(folder, "hidden", [path for path in hidden if _holds_pictures(path)])
    nested = sum(map(len, inside.values()))
    if flat and nested:
        kept = "the class folders are" if nested >= len(flat) else "the pictures at the top are"
        notes.append(
            f"{folder} is mixed: {len(flat)} pictures at the top and {nested} in {len(full)} "
            f"folders: only {kept} taken; move the others, or list all of them in {LABELS_FILE}"
        )
    if len(flat) > nested or not full:
        if known is not None:
            raise VitqError(f"{folder} has no class folders or names: leave --classes out")
        return Listing(folder, tuple(flat), Origin.NONE, {}, (), tuple(notes))
    _refuse_a_root_of_sets(folder, inside)
    return _of_folders(folder, {path: inside[path] for path in full}, known, notes)


def _of_table(folder: Path, table: Path, known: ClassMap | None) -> Listing:
    read = read_table(table, known)
    notes, names = list(read.notes), dict(read.names) if known is None else known.names
    listed = {entry.file for entry in read.entries}
    others = [path for path in folder.iterdir() if is_picture(path) and path not in listed]
    if read.entries and others:
        notes.append(f"{table} lists {len(listed)} pictures and lacks {len(others)} of the folder")
    files = (table,) if known is None else (table, known.path)
    return Listing(folder, read.entries, Origin.TABLE, names, files, tuple(notes))


def _of_folders(
    folder: Path, inside: dict[Path, list[Path]], known: ClassMap | None, notes: list[str]
) -> Listing:
    """Give class folders their numbers."""
    beside = [folder / name for name in CLASSES_FILES if (folder / name).is_file()]
    if known is None and beside:
        known = read_classes(beside[0])
        notes.append(f"{folder}: the numbers of its classes are those of {beside[0].name}")
    names = [path.name for path in inside]
    if known is not None:
        origin, numbers = Origin.CLASSES, [known.number(n, str(folder / n)) for n in names]
    elif all(name.isascii() and name.isdigit() for name in names):
        origin, numbers = Origin.NUMBERS, [_folder_number(folder, name) for name in names]
        if len(set(numbers)) < len(numbers):
            raise VitqError(f"{folder}: two class folders have the same number: merge them")
        notes.append(
            f"{folder}: its class folders are called by numbers, {min(numbers)} to {max(numbers)}: "
            "these are the labels"
        )
    else:
        origin, numbers = Origin.PLACES, list(range(len(names)))
        notes += _misnumbered(folder, names)
    by_number = sorted(zip(numbers, inside, strict=True))
    entries = [Entry(file, n, str(path)) for n, path in by_number for file in inside[path]]
    called = {number: path.name for number, path in by_number}
    called = called if known is None else {**called, **known.names}
    files = () if known is None else (known.path,)
    return Listing(folder, tuple(entries), origin, called, files, tuple(notes))


def _folder_number(folder: Path, name: str) -> int:
    if len(name.lstrip("0")) > len(str(LARGEST)) or int(name) > LARGEST:
        raise VitqError(f"{folder / name[:40]}: the largest class number is {LARGEST}")
    return int(name)


def _misnumbered(folder: Path, names: list[str]) -> list[str]:
    """Say where names begin with numbers that are not their places."""
    found = [_NUMBERED.match(name) for name in names]
    begun = [int(match[1]) for match in found if match]
    if len(begun) < len(names) or begun == list(range(len(names))):
        return []
    return [
        f"{folder}: class folders are numbered by their place in the order of text, and not by the "
        f"numbers that their names begin with ({names[0]} is 0, {names[-1]} is {len(names) - 1}): "
        f"if that is wrong, {REMEDY}"
    ]


def _pictures_in(folder: Path) -> list[Path]:
    """All pictures below a class folder, as ImageFolder walks it."""
    found = []
    for root, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(root, name) for name in files if is_picture(Path(name))]
    return sorted(found)


def _refuse_a_root_of_sets(folder: Path, inside: dict[Path, list[Path]]) -> None:
    """Refuse a folder of which each part holds class folders itself: train and val.

    Raises:
        VitqError: it is one.
    """
    pictured = {path: files for path, files in inside.items() if files}
    if any(file.parent == path for path, files in pictured.items() for file in files):
        return
    deep = {path: {f.relative_to(path).parts[0] for f in fs} for path, fs in pictured.items()}
    if any(len(parts) > 1 for parts in deep.values()):
        first = next(iter(pictured))
        raise VitqError(
            f"{folder}: its folders {_some(p.name for p in pictured)} hold class folders "
            f"themselves: give one of them, {first}"
        )


def _holds_pictures(path: Path) -> bool:
    if path.is_dir():
        return bool(_pictures_in(path))
    return is_picture(Path(path.name.lstrip(".") or "x"))


def _left_out(folder: Path, kind: str, paths: list[Path]) -> list[str]:
    if not paths:
        return []
    what = "no classes" if all(path.is_dir() for path in paths) else "left out"
    return [f"{folder}: {len(paths)} {kind} ({_some(p.name for p in paths)}): {what}"]


def _some(names: Iterable[str]) -> str:
    """Return the first names of a list."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def matched(listing: Listing, outputs: int) -> Listing:
    """Hold a listing's labels against what a model gives.

    Args:
        listing: of a folder.
        outputs: how many classes the model has.

    Returns:
        It; folders that are called by ImageNet's identifiers get ImageNet's numbers where places
        are not enough.

    Raises:
        VitqError: a label that the model cannot give, or fewer folders than classes.
    """
    check_range(listing.entries, outputs)
    if listing.origin is not Origin.PLACES or len(listing.names) == outputs:
        return listing
    found = imagenet_numbers(list(listing.names.values()), outputs)
    if found is None:
        raise VitqError(
            f"{listing.folder} has {len(listing.names)} class folders and the model {outputs} "
            f"outputs: numbers by place may be wrong for each of them; {REMEDY}"
        )
    moved = {old: found[name] for old, name in listing.names.items()}
    entries = tuple(
        e._replace(label=moved[e.label]) for e in listing.entries if e.label is not None
    )
    note = f"{listing.folder}: its {len(moved)} folders get ImageNet's numbers (n01440764 is 0)"
    names = {moved[old]: name for old, name in listing.names.items()}
    notes = (*listing.notes, note)
    return replace(listing, entries=entries, names=names, origin=Origin.CLASSES, notes=notes)


def check_range(entries: Iterable[Entry], outputs: int) -> None:
    """Refuse a label that a model of so many outputs cannot give.

    Raises:
        VitqError: the message names the first, and where it stands.
    """
    for entry in entries:
        if entry.label is not None and not 0 <= entry.label < outputs:
            raise VitqError(
                f"{entry.place}: class {entry.label}, but the model has {outputs} outputs: classes "
                f"0 to {outputs - 1}"
            )


def imagenet_numbers(names: list[str], outputs: int) -> dict[str, int] | None:
    """ImageNet-1k's class numbers by identifier, if all names are some of a model of 1000."""
    if outputs != IMAGENET or not all(_SYNSET.fullmatch(name) for name in names):
        return None
    from vitq.models.timm_compat import import_timm

    info = import_timm().data.ImageNetInfo("imagenet-1k")
    numbers = {name: place for place, name in enumerate(info.label_names())}
    return numbers if all(name in numbers for name in names) else None
