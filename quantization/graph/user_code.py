"""Errors of the user's own code: one line that names its file and line; nothing here loads torch.

``-v`` shows the whole traceback.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path

from vitq.numerics.errors import VitqError, reason

logger = logging.getLogger(__name__)

INSTALLED = frozenset({"site-packages", "dist-packages"})
OURS = Path(__file__).resolve().parents[2]
"""The folder of this project's own files."""


def prints_aside() -> AbstractContextManager[object]:
    """Send what the user's code prints to stderr: a command's answer is alone on stdout."""
    return redirect_stdout(sys.stderr)


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn any exception of the user's code inside into a `VitqError`.

    Args:
        what: begins the message.

    Raises:
        VitqError: with the innermost line of the user's that the exception passed.
    """
    try:
        with prints_aside():
            yield
    except VitqError:
        raise
    except (Exception, SystemExit) as error:
        raise explained(what, error) from error


def explained(what: str, error: BaseException) -> VitqError:
    """Return the line for an exception; at DEBUG its traceback is shown.

    Args:
        what: begins the message.
        error: that was raised.
    """
    logger.debug("%s", "".join(traceback.format_exception(error)).rstrip())
    place = _place(error)
    where = f" (at {place}; -v shows the traceback)" if place else ""
    kind = type(error).__name__
    said = reason(error)
    message = said if said == kind else f"{kind}: {said}"
    return VitqError(f"{what}: {message}{where}")


def _place(error: BaseException) -> str:
    """File and line of the user's code; that of any code where there is none of theirs."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_users(Path(frame.filename))]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else ""


def is_users(path: Path) -> bool:
    """Whether a source file is neither installed, nor Python's, nor this project's."""
    if not path.is_file() or INSTALLED.intersection(path.parts):
        return False
    resolved = path.resolve()
    tests = OURS / "tests"
    ours = resolved.is_relative_to(OURS) and not resolved.is_relative_to(tests)
    python = any(resolved.is_relative_to(Path(prefix, "lib").resolve()) for prefix in
                 {sys.prefix, sys.base_prefix})  # fmt: skip
    return not (ours or python)


def _short(name: str) -> str:
    path, here = Path(name), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
