"""Writing files so that an interruption leaves nothing half-written."""

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitq.numerics.errors import VitqError

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that file systems take."""
KEPT_NAME = 40
"""Characters of a name that its temporary name keeps: 32 more must fit behind them."""


def require_writable(path: Path) -> None:
    """Say before long work what would go wrong at its end; nothing is written or made.

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
    if os.statvfs(above).f_flag & os.ST_RDONLY:
        raise _error(errno.EROFS, above)
    if not os.access(above, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, above)


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
def replaced_folder(out: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `out`, which takes its place when all went well.

    Args:
        out: the final name; its parent is made if needed, and what is there goes away.

    Yields:
        The empty folder to fill.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        build = Path(temporary) / "new"
        build.mkdir()
        yield build
        if out.exists():
            out.rename(Path(temporary) / "earlier")
        build.rename(out)
