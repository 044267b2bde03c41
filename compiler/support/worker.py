"""Processes that stay alive and do one thing after another for this one.

Starting Python and importing TVM takes seconds, compiling and timing a kernel a fraction of one.
What crashes a worker or takes too long costs only the job that did it: the next one gets a new
worker.

A worker imports nothing of this process: it starts with its variables and on its cores, before any
library sizes a pool of threads by them. It is a process group of its own, which Ctrl-C at a
terminal does not reach: this process ends it, with all that it has started.
"""

import importlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 120.0
STOP_S = 10.0
BOOT = """
import json, os, sys
boot = json.loads(sys.argv[1])
sys.path, sys.argv = boot["path"], boot["argv"]
if boot["cores"] and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, boot["cores"])
from vitq.compiler.support.worker import serve
serve(boot["connection"])
"""
"""What a worker's Python runs: nothing of ours may be imported before its cores are set."""


class WorkerError(Exception):
    """The job failed, crashed its worker, or took too long.

    Attributes:
        raised: what the job raised, if it did and that can be sent.
    """

    raised: Exception | None = None


def serve(descriptor: int) -> None:
    """Call what is sent until the other end is gone: a worker's life.

    Args:
        descriptor: of the connection.
    """
    os.dup2(2, 1)  # what libraries print is not for this process's stdout
    with Connection(descriptor) as connection:
        while True:
            try:
                function, arguments = connection.recv()
            except EOFError:
                return
            except Exception as error:  # what was sent cannot be read
                connection.send((False, _described(error), None))
                continue
            answer: tuple[bool, Any, Exception | None]
            try:
                answer = (True, function(*arguments), None)
            except Exception as error:
                answer = (False, _described(error), _portable(error))
            try:
                connection.send(answer)
            except Exception as error:  # what it returned cannot be sent
                connection.send((False, _described(error), None))


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _portable(error: Exception) -> Exception | None:
    """Make an exception that can be sent, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error if isinstance(copy, type(error)) else None


def _import_all(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


class Worker:
    """One process.

    Args:
        cores: that it may run on; empty for all.
        environment: variables that it gets beside this process's own.
        imports: modules that are slow to import, and not to be charged to the first job.
        captured: whether what it writes to stderr is kept, for its last words, and not shown.
    """

    def __init__(
        self,
        cores: Sequence[int] = (),
        environment: dict[str, str] | None = None,
        imports: Sequence[str] = ("tvm",),
        captured: bool = False,
    ) -> None:
        self.cores = tuple(cores)
        self.environment = environment or {}
        self.imports, self.captured = tuple(imports), captured
        self._process: Any = None
        self._connection: Any = None
        self._errors: Any = None
        self._end: Any = None

    def call(self, function: Callable[..., T], *arguments: Any, timeout_s: float) -> T:
        """Call a function there.

        Args:
            function: of a module.
            arguments: picklable.
            timeout_s: after which the worker is ended.

        Raises:
            WorkerError: it raised, crashed or took too long.
        """
        if self._process is None:
            self._start()
        return self._exchange(function, arguments, timeout_s)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        boot = {
            "path": [entry or os.getcwd() for entry in sys.path],
            "argv": sys.argv,
            "cores": self.cores,
            "connection": theirs.fileno(),
        }
        self._errors = tempfile.TemporaryFile() if self.captured else None
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(boot)],
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                env={**os.environ, **self.environment},
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        self._end = weakref.finalize(self, _kill, self._process)
        self._exchange(_import_all, (self.imports,), START_S)

    def _exchange(self, function: Callable[..., T], arguments: Any, timeout_s: float) -> T:
        process, connection = self._process, self._connection  # another thread may close
        try:
            connection.send((function, arguments))
            if not connection.poll(timeout_s):
                raise WorkerError(f"took more than {timeout_s:g} s")
            fine, value, cause = connection.recv()
        except (EOFError, OSError) as error:
            reason = self._last_words(process)
            self.close()
            raise WorkerError(reason) from error
        except BaseException:
            self.close()
            raise
        if not fine:
            failure = WorkerError(str(value))
            failure.raised = cause
            raise failure
        result: T = value
        return result

    def _last_words(self, process: Any) -> str:
        """Why it ended without an answer."""
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return "its process closed its connection"
        text = f"its process ended with code {code}"
        errors = self._errors
        if errors is None:
            return text
        try:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").split("\n")
        except ValueError:  # another thread has closed it
            return text
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return text + (f": {said}" if said else "")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            self._end()
            self._connection.close()
            if self._errors is not None:
                self._errors.close()


def _kill(process: Any) -> None:
    """End a worker and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


class Pool:
    """Workers that share jobs.

    Args:
        workers: not used by anything else.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = list(workers)
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers:
            self._free.put(worker)

    def map(
        self, function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], timeout_s: float
    ) -> list[T | WorkerError]:
        """Call a function for each tuple of arguments; in place of a failed result its error."""

        def one(arguments: tuple[Any, ...]) -> T | WorkerError:
            worker = self._free.get()
            try:
                return worker.call(function, *arguments, timeout_s=timeout_s)
            except WorkerError as error:
                return error
            finally:
                self._free.put(worker)

        with ThreadPoolExecutor(len(self._workers)) as threads:
            return list(threads.map(one, jobs))

    def close(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.close()
