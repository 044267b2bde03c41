"""Which files of tests enter a function: only those can notice a change of it."""

import inspect
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.mutation.mutate import Mutant

LOCAL = re.compile(r"\.<locals>|\.?<(?!module)\w+>.*")
"""In a code object's name, what a mutant's place does not tell."""
IMPORTED = ""
"""Stands for a file of tests where code runs on import, or as tests are collected."""
Found = tuple[dict[str, list[str]], dict[str, float]]
"""Files of tests by function, and seconds that each takes."""


class Recorder:
    """A plugin of pytest that notes which functions of the repository each file of tests enters.

    Args:
        root: the repository; only code below it is noted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.test = IMPORTED
        self.files: dict[str, str] = {}
        self.entered: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)

    def found(self) -> Found:
        """All that was seen."""
        return {name: sorted(tests) for name, tests in self.entered.items()}, dict(self.seconds)

    def pytest_sessionstart(self) -> None:
        """See every call, in threads, too."""
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def pytest_sessionfinish(self) -> None:
        """No longer."""
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Fixtures included."""
        self.test = str(item.path)
        begun = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[self.test] += time.perf_counter() - begun
            self.test = IMPORTED

    def _trace(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        file = self.files.get(code.co_filename)
        if file is None:
            path = Path(code.co_filename).resolve()
            inside = path.is_relative_to(self.root)
            file = path.relative_to(self.root).as_posix() if inside else ""
            self.files[code.co_filename] = file
        if file:
            is_function = code.co_flags & inspect.CO_OPTIMIZED
            test = self.test if is_function else IMPORTED
            self.entered[place(file, code.co_qualname)].add(test)


def place(file: str, name: str) -> str:
    """A function as a mutant says it.

    Args:
        file: from the repository's root.
        name: its qualified name; what is inside of it, such as a lambda, belongs to it.
    """
    name = "module" if name == "<module>" else LOCAL.sub("", name) or "module"
    return f"{file} {name}"


class Reach:
    """What a set of tests enters.

    Args:
        found: what a `Recorder` saw.
    """

    def __init__(self, found: Found) -> None:
        self.entered, self.seconds = found

    def tests(self, mutant: Mutant, own: list[str]) -> list[str]:
        """Files of tests that can notice a mutant: its module's own, then from quick to slow.

        All of them, where the code runs on import. A file counts whole: a cache or a fixture may
        keep what one of its tests entered for the next.
        """
        tests = self.entered.get(place(mutant.file, mutant.where), [])
        if IMPORTED in tests:
            tests = list(self.seconds)
        rest = sorted(set(tests) - set(own), key=lambda test: self.seconds[test])
        return [*own, *rest]
