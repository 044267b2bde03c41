"""Processes that stay alive and do one thing after another for this one.

Starting Python and importing TVM takes seconds, compiling and timing a kernel a fraction of one.
What crashes a worker or takes too long costs only the job that did it: the next one gets a new
worker.
"""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 120.0


class WorkerError(Exception):
    """The job failed, crashed its worker, or took too long."""


def _serve(connection: Connection, cores: Sequence[int], environment: dict[str, str]) -> None:
    """A worker's life: call what is sent until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        except Exception as error:  # what was sent cannot be read
            connection.send((False, f"{type(error).__name__}: {error}"))
            continue
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        connection.send(answer)


def _ready() -> None:
    import tvm  # noqa: F401 - slow, and not to be charged to the first job


class Worker:
    """One process.

    Args:
        cores: that it may run on; empty for all.
        environment: variables that it gets.
    """

    def __init__(
        self, cores: Sequence[int] = (), environment: dict[str, str] | None = None
    ) -> None:
        self.cores = tuple(cores)
        self.environment = environment or {}
        self._process: Any = None
        self._connection: Any = None

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
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.cores, self.environment), daemon=True
        )
        self._process.start()
        theirs.close()
        self._exchange(_ready, (), START_S)

    def _exchange(self, function: Callable[..., T], arguments: Any, timeout_s: float) -> T:
        process, connection = self._process, self._connection  # another thread may close
        try:
            connection.send((function, arguments))
            if not connection.poll(timeout_s):
                raise WorkerError(f"took more than {timeout_s:g} s")
            fine, value = connection.recv()
        except (EOFError, OSError) as error:
            process.join(1)
            code = process.exitcode
            self.close()
            raise WorkerError(f"the worker died (exit code {code})") from error
        except BaseException:
            self.close()
            raise
        if not fine:
            raise WorkerError(str(value))
        result: T = value
        return result

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
            self._connection.close()


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
