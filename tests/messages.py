"""Which errors of users have a test that reads their text (`test_messages`).

An error's text is the literal parts of what is raised. It is read by a test where two words in a
row of it, or three, or two with a value between them, stand in some test and in no other error (but
one: two stages may refuse the same). ``python -m tests.messages`` prints those that none reads.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("compiler", "export", "models", "numerics", "quantization", "relay_passes", "vitq/api")
ERRORS = frozenset({
    "VitqError",
    "RangeError",
    "IntegersDifferError",
    "RangesError",
    "DeclineError",
})
VALUE = "{}"
WORD = re.compile(r"[\w'.-]*\w|\{\}")
OWN = ("messages.py", "test_messages.py")
SHARED = 2


class Message(NamedTuple):
    """One error.

    Attributes:
        place: file and function, for people.
        text: its literal parts, ``{}`` for the others.
    """

    place: str
    text: str


def messages() -> list[Message]:
    """All errors that the project makes, in order of place."""
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= set(_of_tree(tree, path.relative_to(ROOT).as_posix()))
    return sorted(found)


def _of_tree(tree: ast.AST, where: str) -> Iterator[Message]:
    """Errors made in functions, by the innermost one's name."""
    for node in ast.iter_child_nodes(tree):
        inside = isinstance(node, ast.FunctionDef | ast.ClassDef)
        place = f"{where}:{node.name}" if inside else where  # type: ignore[attr-defined]
        yield from _of_tree(node, f"{where.partition(':')[0]}:{node.name}" if inside else where)  # type: ignore[attr-defined]
        name = getattr(getattr(node, "func", None), "id", "")
        if isinstance(node, ast.Call) and name in ERRORS - {"DeclineError"} and node.args:
            text = re.sub(r"(\{\})+", VALUE, " ".join(_text(node.args[0]).split()))
            if re.search(r"\w", text.replace("{}", "")):
                yield Message(place, text)


def _text(node: ast.expr) -> str:
    """Return the literal parts of an expression."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "{}"


def parts(text: str) -> set[str]:
    """Two or three words in a row, of each literal part and around each value; or one alone."""
    words = WORD.findall(text)
    found = {f"{a} {b}" for a, b in pairwise(words) if VALUE not in (a, b)}
    threes = zip(words, words[1:], words[2:], strict=False)
    found |= {f"{a} {b} {c}" for a, b, c in threes if VALUE not in (a, c)}
    return found or {" ".join(word for word in words if word != VALUE)}


def _is_in(part: str, tests: str) -> bool:
    """Whether a test has it; a value is up to six words, none where a pattern leaves it out."""
    if VALUE not in part:
        return part in tests
    before, after = (re.escape(word) for word in part.split(f" {VALUE} "))
    return re.search(rf"(?<!\S){before}(?: \S+){{0,6}} {after}(?!\S)", tests) is not None


def _tests() -> str:
    """The text of all tests, without what regular expressions escape."""
    paths = sorted((ROOT / "tests").rglob("*.py"))
    text = " ".join(path.read_text(encoding="utf-8") for path in paths if path.name not in OWN)
    text = re.sub(r'"\s*\n\s*[rf]?"', "", text)  # a literal in two parts
    return " ".join(re.findall(r"[\w'.-]*\w", text.replace("\\", "")))


def untested() -> dict[str, str]:
    """Texts that no test reads, in order, with a place of each."""
    everything, tests = messages(), _tests()
    texts = {message.text for message in everything}
    often = Counter(part for text in texts for part in parts(text))
    return {
        message.text: message.place
        for message in sorted(everything, key=lambda message: message.text)
        if not any(often[part] <= SHARED and _is_in(part, tests) for part in parts(message.text))
    }


if __name__ == "__main__":
    for text, place in untested().items():
        print(f"{place}: {text}")
