"""Files: written so that no interruption leaves half of one, and JSON that is read."""

import errno
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vitq.numerics.errors import VitqError, reason

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that file systems take."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRIED_BYTES = 4096
"""A block of most file systems: an empty file fits on a full disk."""
KEPT_NAME = 40
"""Characters of a name that its temporary name keeps: 32 more must fit behind them."""


def read_object(path: Path, name: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file, Unicode with or without a mark of its byte order.
        name: what an error calls it.
        remedy: what to do then.

    Returns:
        The object.

    Raises:
        VitqError: it is missing, is damaged, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise VitqError(f"{name} cannot be read as JSON: {reason(error)}: {remedy}") from error
    if not isinstance(content, dict):
        raise VitqError(f"{name} holds a JSON {type(content).__name__} and no object: {remedy}")
    return content


def require_writable(path: Path) -> None:
    """Say before long work what would go wrong at its end; nothing of it stays.

    A file without a name is made and written where `path` will be: rights, mounts and file systems
    that refuse (``/proc``), quotas and a full disk all show themselves so.

    Args:
        path: a file or folder to be written, with those above it.

    Raises:
        OSError: naming `path`, or the part of it that stands in the way.
        VitqError: a device or a pipe stands there.
    """
    absolute = path.absolute()
    sizes = [len(os.fsencode(part)) for part in absolute.parts]
    if max(sizes) > LONGEST_NAME or len(os.fsencode(absolute)) > LONGEST_PATH:
        raise _error(errno.ENAMETOOLONG, path)
    _refuse_special(path)
    above = next(folder for folder in absolute.parents if folder.exists())
    if not above.is_dir():
        raise _error(errno.ENOTDIR, above)
    _try_to_write(path if path.is_dir() else above)


def require_file(path: Path) -> None:
    """Say before long work that a file cannot be written (see `require_writable`).

    Raises:
        OSError: a folder of that name, too.
        VitqError: a device or a pipe stands there.
    """
    if path.is_dir():
        raise _error(errno.EISDIR, path)
    require_writable(path)


def _try_to_write(folder: Path) -> None:
    """Write a little into a folder, in a file that nobody sees.

    Raises:
        OSError: naming the folder.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIED_BYTES))
            file.flush()
    except FileNotFoundError as error:  # of a folder that is there: no files are made in it
        raise _error(errno.EPERM, folder) from error
    except OSError as error:
        raise _error(error.errno or errno.EIO, folder) from error


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _refuse_special(path: Path) -> None:
    """Refuse to replace a device, a pipe or a socket.

    Raises:
        VitqError: naming it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise VitqError(f"{path} is a device, a pipe or a socket: give a file")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary name beside `path`, then rename.

    Args:
        path: the final name; its folder is made if needed.
        content: bytes, or text for UTF-8.

    Raises:
        OSError: it cannot be written; named is `path`, and nothing of it is left.
        VitqError: a device or a pipe stands there, which would be replaced by a file.
    """
    _refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name[:KEPT_NAME]}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _named(out: Path) -> Iterator[None]:
    """Say of what does not fit only that, and where it was to go."""
    try:
        yield
    except (OSError, VitqError) as error:
        said = str(error)
        number = next((n for n in NO_ROOM if os.strerror(n) in said), None)
        if number is None:
            raise
        raise _error(number, out) from error


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `out`, which takes its place when all went well.

    Args:
        out: the final name; its parent is made if needed, and what is there goes away.

    Yields:
        The empty folder to fill.

    Raises:
        OSError: there is no room; named is `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        _named(out),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary,
    ):
        build = Path(temporary) / "new"
        build.mkdir()
        yield build
        if out.exists():
            out.rename(Path(temporary) / "earlier")
        build.rename(out)
