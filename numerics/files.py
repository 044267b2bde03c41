"""Writing files so that an interruption leaves nothing half-written."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary name beside `path`, then rename.

    Args:
        path: the final name; its folder is made if needed.
        content: bytes, or text for UTF-8.

    Raises:
        OSError: it cannot be written; named is `path`, and nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
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
