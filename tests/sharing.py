"""What is made once for all of pytest's workers: artifacts, bundles, programs in C++.

The first worker that asks makes it, the others wait; each gets files of its own where tests write.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitq.compiler.target.tools import Toolchain

PLAN = "vitq_plan.h"
"""A model's own source, which `PLANNED` alone includes."""
PLANNED = "vitq_static.c"


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One worker at a time."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker fills; a failure leaves the next one to try.

    Args:
        folder: inside of `session_folder`.
        make: fills an empty folder.
    """
    with locked(folder):
        if not folder.is_dir():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def built_once(cache: Path) -> Callable[[Toolchain, Sequence[str], Path, str], None]:
    """`Toolchain.build`, which compiles the same sources only once in this run.

    Args:
        cache: a folder for what was built.
    """
    build = Toolchain.build

    def run(tools: Toolchain, arguments: Sequence[str], folder: Path, what: str) -> None:
        if PLANNED in arguments:
            build(tools, arguments, folder, what)
            return

        def make(new: Path) -> None:
            before = _files(folder)
            build(tools, arguments, folder, what)
            for path in _files(folder) - before:
                target = new / path.relative_to(folder.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)

        key = _key(tools, arguments, folder)
        shutil.copytree(made_once(cache / key, make), folder.parent, dirs_exist_ok=True)

    return run


def _files(folder: Path) -> set[Path]:
    """Where a build's results can lie."""
    return {path for place in (folder, folder.parent) for path in place.iterdir() if path.is_file()}


def _key(tools: Toolchain, arguments: Sequence[str], folder: Path) -> str:
    """All that decides what a build gives."""
    digest = hashlib.sha256(repr((tools.compiler, *arguments)).encode())
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".cc", ".c", ".h") and path.name != PLAN:
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
