"""One process at a time writes into a folder; what a killed one left half-written goes away.

Locks are the system's (flock): they end with their process, however it ends. They lie in the user's
cache and not beside what they guard, so that an artifact holds its own files only.
"""

import functools
import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from vitq.compiler.support.folders import cache_folder

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
FOLDER = "locks"
HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}|\.build\.\w+")
"""Names of `numerics.files.write_atomically` and of a library that is being linked; those of
`numerics.files.replaced_folder` lie beside the folder."""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Wait until no other process writes to a folder, and tidy it up.

    A process may take the same folder again while it has it.

    Args:
        folder: need not exist yet; folders inside of it are not guarded.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    place = cache_folder() / FOLDER / name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place, is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("%s: another vitq writes there; waiting until it is done", folder)
            lock.acquire()
    except OSError as error:
        logger.warning(
            "%s is not locked (%s: %s): run no other vitq that writes there", folder, place.parent,
            error.strerror,
        )  # fmt: skip
        yield
        return
    try:
        _tidy(folder)
        yield
    finally:
        lock.release()


def alone(folder_of: Callable[P, Path]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that writes to a folder: `writing_to` it.

    Args:
        folder_of: returns the folder, from the function's arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            with writing_to(folder_of(*args, **kwargs)):
                return function(*args, **kwargs)

        return guarded

    return decorate


def _tidy(folder: Path) -> None:
    """Remove what a process that was killed left half-written."""
    beside = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}")
    for place, names in ((folder, HALF_WRITTEN), (folder.parent, beside)):
        for path in place.glob(".*") if place.is_dir() else ():
            if names.fullmatch(path.name):
                logger.debug("%s: left by a process that was killed", path)
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
