"""Work on many cells at once: joblib hands them out, each runs in a process of its own.

A cell's process (`compiler.support.worker`) may run out of memory or crash: that costs this cell,
and its memory is free when it is done. So joblib needs only threads here; its dask backend puts
the same threads on other machines, and gives the cells of a worker that died to the others.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vitq.compiler.support.extras import installed
from vitq.compiler.support.limits import check_number
from vitq.compiler.support.worker import Worker, WorkerError
from vitq.numerics.errors import VitqError, reason

Job = TypeVar("Job")
Result = TypeVar("Result")
MOST = 256
LONGEST_S = 7 * 24 * 3600.0
CLUSTER = "cluster"
"""The optional extra that brings dask."""
START = "run dask scheduler here, and dask worker HOST:PORT where vitq is installed, too"


@dataclass(frozen=True)
class Spread:
    """How cells are spread.

    Attributes:
        parallel: how many run at once on this machine.
        dask: ``host:port`` of a dask scheduler, whose workers run them instead.
    """

    parallel: int = 1
    dask: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        check_number("--parallel", self.parallel, 1, MOST)
        if self.dask is None:
            return
        if self.parallel != 1:
            raise VitqError(
                "give --parallel or --dask, not both: dask's workers have their threads"
            )
        if installed("distributed") is None:
            raise VitqError(f"--dask needs distributed: pip install 'vitq[{CLUSTER}]'")


def run_apart(function: Callable[[Job], Result], job: Job) -> Result | str:
    """Call a function of a module in a new process.

    Returns:
        Its result, or how the process ended without one.
    """
    worker = Worker(imports=(function.__module__,), environment={"OMP_NUM_THREADS": "1"})
    try:
        return worker.call(function, job, timeout_s=LONGEST_S)
    except WorkerError as error:
        return str(error)
    finally:
        worker.close()


def spread_out(
    function: Callable[[Job], Result], jobs: Sequence[Job], spread: Spread
) -> Iterator[tuple[int, Result | str]]:
    """Run a function on every job.

    Args:
        function: of a module that workers can import; does not raise.
        jobs: what it takes.
        spread: where to.

    Yields:
        Place of the job and its result, or why there is none, in the order in which they end.

    Raises:
        VitqError: the scheduler is not there, or has no workers.
    """
    from joblib import Parallel, delayed

    with _backend(spread):
        run = Parallel(batch_size=1, return_as="generator_unordered")
        yield from run(delayed(_numbered)(function, *item) for item in enumerate(jobs))


def _numbered(function: Callable[[Job], Result], place: int, job: Job) -> tuple[int, Result | str]:
    return place, run_apart(function, job)


@contextlib.contextmanager
def _backend(spread: Spread) -> Iterator[Any]:
    """Choose joblib's backend."""
    from joblib import parallel_config

    if spread.dask is None:
        with parallel_config(backend="threading", n_jobs=spread.parallel) as chosen:
            yield chosen
        return
    from distributed import Client

    try:
        client = Client(spread.dask, set_as_default=False)
    except (OSError, ValueError) as error:
        raise VitqError(f"--dask {spread.dask}: {reason(error)}: {START}") from error
    with client:
        if not client.ncores():
            raise VitqError(f"--dask {spread.dask} has no workers: {START}")
        with parallel_config(backend="dask", client=client) as chosen:
            yield chosen
