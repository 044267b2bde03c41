"""What the tests of README and docs share: the pages, and the commands that stand in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "tuning_logs")),
])
FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(?P<body>(?:vitq|make) [^`]+)`")
MAKE_COMMENT = re.compile(r"^# (make .+)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        page: where it stands.
        words: without comments and redirections.
        whole: a line of a block, not a mention of some options.
    """

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        """For a test's name."""
        return f"{self.page}: {' '.join(self.words)}"


def without_code(text: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text)


def _words(line: str) -> tuple[str, ...]:
    line = re.split(r" {2,}(?=#)| [>|&](?= |$)", line)[0]
    return tuple(shlex.split(line, comments=True))


def _in(page: str, text: str) -> Iterator[Command]:
    for match in FENCE.finditer(text):
        for line in match["body"].replace("\\\n", " ").splitlines():
            if match["language"] != "python" or "  vitq " in line:
                start = re.search(r"(?:^|#.*  |&& )((?:vitq|make|python3 -m gpu_kit)\b.*)", line)
                if start:
                    yield Command(page, _words(start[1]), whole=True)
    for match in INLINE.finditer(without_code(text)):
        yield Command(page, _words(match["body"]), whole=False)


def commands() -> list[Command]:
    """All commands of all pages, and those in the Makefile's head; each once."""
    found: list[Command] = []
    for path in PAGES:
        found += _in(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    for match in MAKE_COMMENT.finditer((ROOT / "Makefile").read_text()):
        found.append(Command("Makefile", _words(match[1].split("   ")[0]), whole=False))
    return list(dict.fromkeys(found))
