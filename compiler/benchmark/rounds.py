"""Rounds over all contestants in turn, and what is made of the times."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitq.compiler.benchmark.worker import LONG_MS, environment
from vitq.compiler.support.progress import progress_bar

TURN_MS = 30.0
RUNS = (3, 50)
"""Runs in one turn: as many as fit into `TURN_MS`, within these limits; one if it takes long."""
STOP_S = 10
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
    if run_ms >= LONG_MS:
        return 1
    return int(np.clip(TURN_MS / max(run_ms, 1e-3), *RUNS))


class Worker:
    """The parent's end of a contestant's process.

    Args:
        spec: what `compiler.benchmark.worker` reads first; ``threads`` sizes its pools.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.samples_ms: list[float] = []
        self.idle_cpu_ms: list[float] = []
        self.peak_rss_mb = 0.0
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vitq.compiler.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(spec["threads"]),
            text=True,
        )
        try:
            self.facts = self._ask(spec)
        except BaseException:
            self.close()
            raise
        self._runs = runs_for(self.facts["warm_ms"])

    def turn(self) -> None:
        """Run a few times and keep the times."""
        reply = self._ask({"runs": self._runs})
        self.samples_ms += reply["ms"]
        self.idle_cpu_ms.append(reply["idle_cpu_ms"])
        self.peak_rss_mb = reply["peak_rss_mb"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(STOP_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line, read one.

        Raises:
            RuntimeError: the worker's own message, or that it died.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            print(json.dumps(request), file=stdin, flush=True)
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def _last_words(self) -> str:
        """Why a process ended without an answer."""
        code = self._process.wait(STOP_S)
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process ended with code {code}" + (f": {said}" if said else "")


def run_rounds(workers: dict[Key, Worker], rounds: int) -> dict[Key, str]:
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
            except RuntimeError as error:
                failed[key] = str(error)
                workers.pop(key).close()
    return failed


def summarize(
    key: Key,
    threads: int,
    worker: Worker,
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
