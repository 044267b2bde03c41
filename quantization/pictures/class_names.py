"""Which number a class has, from a file: the model's order, which no folder knows.

class_to_idx.json    {"cat": 0, "dog": 1}         as torchvision's ImageFolder has it
                     {"0": "cat", "1": "dog"}     or Hugging Face's id2label; ImageNet's
                     {"0": ["n01440764", "tench"]}    class index gives each class two names
                     {"label2id": {"cat": 0}}     a Hugging Face config.json
                     ["cat", "dog"]               names in order
classes.txt          a name on each line, in order
"""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from vitq.numerics.errors import VitqError

CLASSES_FILES = ("class_to_idx.json", "classes.json", "classes.txt")
"""Looked for beside class folders."""
FORMS = (
    'give a JSON file {"name": number}, {"number": "name"} or ["name", ...], or a text file with '
    "a name on each line"
)


class ClassMap(NamedTuple):
    """The classes of a model.

    Attributes:
        path: of the file.
        numbers: by name, as far as it names one class only; a class may have several names.
        names: by number; of ImageNet's two the one for people.
        ambiguous: names of several classes (ImageNet has two cranes).
    """

    path: Path
    numbers: dict[str, int]
    names: dict[int, str]
    ambiguous: frozenset[str] = frozenset()

    def number(self, name: str, where: str) -> int:
        """Return the number of a class.

        Args:
            name: of the class.
            where: it stands, for the message.

        Raises:
            VitqError: the name is unknown, or that of several classes.
        """
        if name in self.ambiguous:
            raise VitqError(f"{where}: {self.path} has several classes {name!r}: use numbers")
        if name not in self.numbers:
            near = get_close_matches(name, self.numbers, 1)
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise VitqError(f"{where}: class {name!r} is not in {self.path}{hint}")
        return self.numbers[name]


def read_classes(path: Path) -> ClassMap:
    """Read the order of a model's classes.

    Args:
        path: JSON, or else a text file.

    Returns:
        The classes.

    Raises:
        VitqError: not readable, or of another form.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise VitqError(f"classes {path} cannot be read ({reason}): {FORMS}") from error
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise VitqError(f"classes {path} are no JSON ({error}): {FORMS}") from error
        return _map_of(path, _pairs(path, content))
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return _map_of(path, [(name, number) for number, name in enumerate(lines)])


def _pairs(path: Path, content: Any) -> list[tuple[str, int]]:
    """Name and number of each class in a JSON file's content."""
    if isinstance(content, dict) and isinstance(content.get("label2id"), dict):
        content = content["label2id"]
    if isinstance(content, list):
        content = {str(number): name for number, name in enumerate(content)}
    if not isinstance(content, dict):
        raise VitqError(f"classes {path} hold a {type(content).__name__}: {FORMS}")
    found: list[tuple[str, int]] = []
    for key, value in content.items():
        if isinstance(value, int) and not isinstance(value, bool):
            found.append((key, value))
            continue
        names = value if isinstance(value, list) else [value]
        is_number = key.isascii() and key.isdigit() and len(key) < 10
        if not is_number or not names or not all(isinstance(name, str) for name in names):
            raise VitqError(f"classes {path}: {key!r}: {value!r:.40} is no class: {FORMS}")
        found += [(name, int(key)) for name in names]
    return found


def _map_of(path: Path, pairs: list[tuple[str, int]]) -> ClassMap:
    """Check names and numbers.

    Raises:
        VitqError: an empty name, a number below 0, or none at all.
    """
    numbers: dict[str, int] = {}
    ambiguous = set()
    for name, number in pairs:
        if not name:
            raise VitqError(f"classes {path}: class {number} has an empty name: {FORMS}")
        if number < 0:
            raise VitqError(f"classes {path}: {name!r} is class {number}: numbers start at 0")
        if numbers.setdefault(name, number) != number:
            ambiguous.add(name)
    if not numbers:
        raise VitqError(f"classes {path} are empty: {FORMS}")
    known = {name: number for name, number in numbers.items() if name not in ambiguous}
    return ClassMap(path, known, {n: name for name, n in pairs}, frozenset(ambiguous))
