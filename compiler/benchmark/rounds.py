"""Rounds over all contestants in turn, and what is made of the times."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitq.compiler.benchmark import turns
from vitq.compiler.support.progress import progress_bar
from vitq.compiler.support.worker import Worker, WorkerError

TURN_MS = 30.0
RUNS = (3, 50)
"""Runs in one turn: as many as fit into `TURN_MS`, within these limits; one if it takes long."""
LOAD_S, TURN_S = 1800.0, 600.0
"""After which a contestant that is loaded, or that runs, hangs."""
Key = tuple[str, int]
"""A contestant's name and its batch size."""


@dataclass(frozen=True)
class Row:
    """One contestant's result.

    Attributes:
        name: of the table of contestants.
        batch: pictures in one run.
        threads: of the library, and pinned cores.
        median_ms: of a run, a whole batch.
        p10_ms: 10th percentile.
        p90_ms: 90th percentile.
        images_per_s: batch / median.
        peak_rss_mb: of its process, MiB.
        model_rss_mb: the part that came with loading and running the model, MiB.
        size_mb: of the files that it loads, MiB.
        runs: how many were timed.
        idle_cpu_ms: median processor time that it burnt while others ran, between two turns.
        device: that it ran on; empty for this machine.
        emulated: that device's processor is emulated: times and throughput mean nothing.
    """

    name: str
    batch: int
    threads: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    images_per_s: float
    peak_rss_mb: float
    model_rss_mb: float
    size_mb: float
    runs: int
    idle_cpu_ms: float
    device: str = ""
    emulated: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields, rounded to what is significant."""
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}


def runs_for(run_ms: float) -> int:
    """How many runs make a turn."""
    if run_ms >= turns.LONG_MS:
        return 1
    return int(np.clip(TURN_MS / max(run_ms, 1e-3), *RUNS))


class ContestantProcess:
    """The parent's end of a contestant's process.

    Args:
        spec: of `compiler.benchmark.turns.load`; ``threads`` sizes its pools.

    Raises:
        WorkerError: it cannot be loaded.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.samples_ms: list[float] = []
        self.idle_cpu_ms: list[float] = []
        self.peak_rss_mb = 0.0
        threads = turns.environment(spec["threads"])
        self._worker = Worker(spec["cores"], threads, imports=(), captured=True)
        try:
            self.facts = self._worker.call(turns.load, spec, timeout_s=LOAD_S)
        except BaseException:
            self.close()
            raise
        self._runs = runs_for(self.facts["warm_ms"])

    def turn(self) -> None:
        """Run a few times and keep the times.

        Raises:
            WorkerError: it failed, crashed, or took too long.
        """
        reply = self._worker.call(turns.turn, self._runs, timeout_s=TURN_S)
        self.samples_ms += reply["ms"]
        self.idle_cpu_ms.append(reply["idle_cpu_ms"])
        self.peak_rss_mb = reply["peak_rss_mb"]

    def close(self) -> None:
        """End the process."""
        self._worker.close()


def run_rounds(workers: dict[Key, ContestantProcess], rounds: int) -> dict[Key, str]:
    """Ask all workers in turn, round after round.

    Args:
        workers: by contestant and batch; one that fails is closed and removed.
        rounds: how often.

    Returns:
        Reasons of those that failed.
    """
    failed: dict[Key, str] = {}
    for _ in progress_bar(range(rounds), f"{len(workers)} contestants", rounds, "round"):
        for key, worker in list(workers.items()):
            try:
                worker.turn()
            except WorkerError as error:
                failed[key] = str(error)
                workers.pop(key).close()
    return failed


def summarize(
    key: Key,
    threads: int,
    worker: ContestantProcess,
    size_mb: float,
    device: str = "",
    emulated: bool = False,
) -> Row:
    """Statistics of a worker's samples."""
    name, batch = key
    p10, median, p90 = np.percentile(worker.samples_ms, [10, 50, 90])
    return Row(
        name=name,
        batch=batch,
        threads=threads,
        median_ms=float(median),
        p10_ms=float(p10),
        p90_ms=float(p90),
        images_per_s=1e3 * batch / float(median),
        peak_rss_mb=worker.peak_rss_mb,
        model_rss_mb=worker.peak_rss_mb - worker.facts["base_rss_mb"],
        size_mb=size_mb,
        runs=len(worker.samples_ms),
        idle_cpu_ms=float(np.median(worker.idle_cpu_ms)),
        device=device,
        emulated=emulated,
    )
