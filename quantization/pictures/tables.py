"""The table of a folder's pictures: ``labels.csv``, a file and its class number on each line.

    file,label,name            a heading, in any language, or none
    cat_01.jpg,281,tabby       commas, semicolons or tabs; quotes as csv writes them; a third column
                               names the class

With a list of classes (`quantization.pictures.class_names`) the second column may hold names, too.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.class_names import ClassMap

LABELS_FILE = "labels.csv"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
DELIMITERS = ",;\t"
LARGEST = 2**31 - 1
"""Of the class numbers: what any label map holds."""
NEEDS = "each line needs a file name and a class number"
_WHOLE = re.compile(r"[+-]?[0-9]+")
_WITH_ZEROS = re.compile(r"[+-]?[0-9]+\.0*")
_SHOWN = 40


class Entry(NamedTuple):
    """One picture.

    Attributes:
        file: where it lies.
        label: its class number, or None.
        place: where that is said, for messages.
    """

    file: Path
    label: int | None = None
    place: str = ""


class Table(NamedTuple):
    """What a table says.

    Attributes:
        entries: in its order.
        names: of the classes that it names, by number.
        notes: what its owner should know, a sentence each.
    """

    entries: tuple[Entry, ...]
    names: dict[int, str]
    notes: tuple[str, ...] = ()


def is_picture(path: PurePath) -> bool:
    """Whether a file is called like a picture; hidden ones are some program's own."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_table(table: Path, classes: ClassMap | None = None) -> Table:
    """Read ``labels.csv``.

    Args:
        table: the file, in the folder of the pictures.
        classes: by name, where the second column may hold names.

    Returns:
        Its lines; whether the files exist is not looked at.

    Raises:
        VitqError: a line that is none, with its number.
    """
    entries: list[Entry] = []
    names: dict[int, str] = {}
    seen: dict[Path, Entry] = {}
    repeated: list[str] = []
    for number, row in _rows(table):
        place = f"{table} line {number}"
        if not entries and _is_heading(row, classes):
            continue
        entry = _entry(table.parent, row, place, classes)
        before = seen.setdefault(entry.file, entry)
        if before is not entry:
            repeated.append(_repetition(before, entry))
        if len(row) > 2 and row[2].strip():
            names.setdefault(entry.label or 0, row[2].strip())
        entries.append(entry)
    notes = (f"{repeated[0]}; {len(repeated)} lines repeat a file",) if repeated else ()
    return Table(tuple(entries), names, notes)


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not empty."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = "it is not UTF-8: save it as that" if isinstance(error, ValueError) else str(error)
        raise VitqError(f"the table {table} cannot be read: {why}") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(first))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise VitqError(f"{table} line {reader.line_num}: {error}; {NEEDS}") from error


def _delimiter(line: str) -> str:
    """Which delimiter a line has first, outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", line)
    return next((letter for letter in bare if letter in DELIMITERS), ",")


def _is_heading(row: list[str], classes: ClassMap | None) -> bool:
    """Whether the first line names columns: it has no picture and its second cell is no class."""
    if len(row) < 2 or any(is_picture(PurePath(cell.strip())) for cell in row):
        return False
    second = row[1].strip()
    known = classes is not None and (second in classes.numbers or second in classes.ambiguous)
    return not _WHOLE.fullmatch(second) and not known


def _entry(folder: Path, row: list[str], place: str, classes: ClassMap | None) -> Entry:
    name = row[0].strip()
    if len(row) < 2 or not name:
        raise VitqError(f"{place}: {_short(','.join(row))} is only one cell; {NEEDS}")
    file = Path(name)
    if ".." in file.parts or (file.is_absolute() and folder.absolute() not in file.parents):
        raise VitqError(
            f"{place}: {_short(name)} lies outside of {folder}: name files inside of it (a link to "
            "another folder may lie there)"
        )
    if "\0" in name:
        raise VitqError(f"{place}: {_short(name)} is no file name; {NEEDS}")
    return Entry(folder / file, _number(row[1].strip(), place, classes), place)


def _number(text: str, place: str, classes: ClassMap | None) -> int:
    """Read a class number; ``3.0``, as a table with an empty cell gets written, is 3."""
    if not _WHOLE.fullmatch(text):
        if classes is not None:
            return classes.number(text, place)
        if not _WITH_ZEROS.fullmatch(text):
            raise VitqError(
                f"{place}: class {_short(text)} is no whole number (names need --classes FILE); "
                f"{NEEDS}"
            )
        text = text.partition(".")[0]
    digits = text.lstrip("+-0")
    label = int(text) if len(digits) <= len(str(LARGEST)) else LARGEST + 1
    if text.startswith("-") and digits:
        raise VitqError(f"{place}: class {_short(text)}: class numbers start at 0")
    if label > LARGEST:
        raise VitqError(f"{place}: class {_short(text)}: the largest class number is {LARGEST}")
    return label


def _repetition(before: Entry, entry: Entry) -> str:
    """Say that a file comes twice.

    Raises:
        VitqError: of two classes.
    """
    line = before.place.rsplit(" ", 1)[-1]
    if entry.label != before.label:
        raise VitqError(
            f"{entry.place}: {entry.file.name} is class {entry.label} here and {before.label} in "
            f"line {line}: keep one of both"
        )
    return f"{entry.place} repeats {entry.file.name} of line {line}"


def _short(text: str) -> str:
    """Quote a text for a message, cut where it is long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
