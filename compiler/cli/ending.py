"""How the program ends: one line and an exit code, whatever ended it.

A KeyboardInterrupt that is raised amid a callback of a C++ library comes back as another exception,
or is dropped where nothing can catch it; amid the start of an extension module it may abort the
process; and a compiler that runs at that moment fails. So Ctrl-C is remembered here: it is raised
behind such a start, once more where it was dropped, and any error that comes of it means
"interrupted".
"""

import atexit
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self, TextIO

from vitq.numerics.errors import plain

INTERRUPTED = 130
"""128 + SIGINT, as shells say it; likewise below."""
BROKEN_PIPE = 141
MISTAKE = 2
OUTPUT = "standard output"
AGAIN_S = 0.05
LONGEST_START_S = 10.0
"""Of an extension module; after that Ctrl-C may end it."""
IMPORT_FRAMES = "<frozen importlib"

REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EFBIG: "raise the limit on a file's size, or write elsewhere",
    errno.EACCES: "give a path that you may use, or change its permissions",
    errno.EPERM: "give a path that you may use, or change its permissions",
    errno.EROFS: "write elsewhere",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "a file stands where a folder is needed: give another path",
    errno.EEXIST: "a file stands where a folder is needed: give another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOMEM: "free some memory",
}


class Interrupts:
    """Ctrl-C inside a ``with`` block, where it is not ignored (as by a shell's background job).

    Attributes:
        received: whether it was pressed.
    """

    def __init__(self) -> None:
        self.received = False
        self._since = 0.0
        self._installed = False
        self._hook = sys.unraisablehook

    def __enter__(self) -> Self:
        """Take over."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._installed = True
            signal.signal(signal.SIGINT, self._press)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ignore it from now on where it was pressed: the last line is on its way."""
        if not self._installed:
            return
        sys.unraisablehook = self._hook
        after = signal.SIG_IGN if self.received else signal.default_int_handler
        signal.signal(signal.SIGINT, after)

    def _press(self, number: int, frame: FrameType | None) -> None:
        """Remember that it was pressed, and raise it."""
        self.received, self._since = True, time.monotonic()
        signal.signal(signal.SIGINT, self._deliver)
        self._deliver(number, frame)

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        """Raise, unless an extension module is starting: then try again."""
        if _is_starting(frame) and time.monotonic() - self._since < LONGEST_START_S:
            self._again()
            return
        raise KeyboardInterrupt

    def _again(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    def _dropped(self, lost: Any) -> None:
        """Deliver what was raised where nothing could catch it."""
        if self.received and issubclass(lost.exc_type, KeyboardInterrupt):
            self._again()
            return
        self._hook(lost)


def _is_starting(frame: FrameType | None) -> bool:
    """Whether an extension module is being loaded somewhere up the stack."""
    while frame is not None:
        is_import = frame.f_code.co_filename.startswith(IMPORT_FRAMES)
        if is_import and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


def leave(code: int) -> NoReturn:
    """End the process, with everything done that is registered for its end.

    Where Ctrl-C came while text was executed (as for a dataclass that is being made), CPython ends
    itself by the signal instead of with its exit code, even if the exception was caught.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def describe(error: OSError) -> str:
    """One line for an error of the system: what, where, remedy."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = f"{' -> '.join(names)}: " if names else ""
    what = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "check it, and run the command again")
    return plain(f"{where}{what}: {remedy}")


class Output:
    """Standard output, whose errors name it; flushed for the last time here.

    Args:
        stream: what it writes to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Whatever else a stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream does it.

        Raises:
            OSError: named `OUTPUT`.
        """
        with _named(OUTPUT):
            return self._stream.write(text)

    def flush(self) -> None:
        """As the stream does it.

        Raises:
            OSError: named `OUTPUT`.
        """
        with _named(OUTPUT):
            self._stream.flush()

    def abandon(self) -> None:
        """Keep Python from flushing once more when it ends."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def is_reader_gone(error: BaseException) -> bool:
    """Whether nobody reads standard output any more."""
    return isinstance(error, BrokenPipeError) and error.filename == OUTPUT
