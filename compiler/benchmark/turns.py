"""What a contestant's process does: load, warm up, run a few times when it is its turn.

`compiler.benchmark.rounds.ContestantProcess` calls `load` once and then `turn`, in a
`compiler.support.worker.Worker` of its own. Nothing heavy is imported before that is pinned.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from vitq.compiler.benchmark.machine import peak_rss_mb, pin

Runner = Callable[[], Any]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS")
WARM_RUNS = 5
WARM_S = 1.0
SETTLE_S = 1.0
QUIET_S = 0.01
QUIET_SHARE = 0.1
LONG_MS = 100.0
"""From here on, one run without the clock would cost more than it makes fair."""


class _Loaded:
    """This process's one contestant.

    Args:
        run: one batch.
        threads: of its pool.
        last_ms: of its latest run.
    """

    def __init__(self, run: Runner, threads: int, last_ms: float) -> None:
        self.run, self.threads, self.last_ms = run, threads, last_ms
        self.rested = time.process_time()


_loaded: list[_Loaded] = []


def load(spec: dict[str, Any]) -> dict[str, Any]:
    """Load and warm up.

    Args:
        spec: ``loader``, ``threads``, ``cores``, and what the loader reads.

    Returns:
        ``warm_ms`` of the last run, ``base_rss_mb`` before the model was loaded, ``affinity``.
    """
    run, facts = _load(spec)
    _loaded[:] = [_Loaded(run, spec["threads"], facts["warm_ms"])]
    return facts


def turn(runs: int) -> dict[str, Any]:
    """Run what `load` has loaded.

    Returns:
        ``ms`` of each run, ``idle_cpu_ms`` since the last turn, ``peak_rss_mb``.
    """
    (loaded,) = _loaded
    idle_ms = 1e3 * (time.process_time() - loaded.rested)
    times = timed_runs(loaded.run, runs, loaded.last_ms)
    loaded.last_ms = times[-1]
    if loaded.threads > 1:
        settle()
    result = {"ms": times, "idle_cpu_ms": idle_ms, "peak_rss_mb": peak_rss_mb()}
    loaded.rested = time.process_time()
    return result


def environment(threads: int) -> dict[str, str]:
    """Variables of a worker: every library's pool has the same size.

    TVM would bind its threads to cores on its own, the process's mask notwithstanding.
    """
    sizes = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**sizes, "TVM_BIND_THREADS": "0", "OPENVINO_TELEMETRY": "0"}


def timed_runs(run: Runner, runs: int, last_ms: float) -> list[float]:
    """Milliseconds of each run; first one more, which brings the caches back."""
    if last_ms < LONG_MS:
        run()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def settle() -> None:
    """Wait until the process is quiet: thread pools spin for a while after their work.

    TVM's does for 130 ms, onnxruntime's for 36 ms: with several threads that would take a core
    from whoever runs next.
    """
    end = time.perf_counter() + SETTLE_S
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(QUIET_S)
        if time.process_time() - before < QUIET_SHARE * QUIET_S:
            return


def _load(spec: dict[str, Any]) -> tuple[Runner, dict[str, Any]]:
    """Load, warm up; facts are the memory before the model was loaded and the last run's time."""
    from vitq.compiler.benchmark.runners import LOADERS, warm_imports

    warm_imports(spec["loader"])
    base_mb = peak_rss_mb()
    run = LOADERS[spec["loader"]](spec)
    started = time.perf_counter()
    warm_ms = 0.0
    for _ in range(WARM_RUNS):
        before = time.perf_counter()
        run()
        warm_ms = 1e3 * (time.perf_counter() - before)
        if time.perf_counter() - started > WARM_S:
            break
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    if affinity not in (None, spec["cores"]):
        pin(spec["cores"])
    return run, {"warm_ms": warm_ms, "base_rss_mb": base_mb, "affinity": affinity}
