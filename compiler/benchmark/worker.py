"""One contestant in a process of its own: ``python -m vitq.compiler.benchmark.worker``.

Talks JSON lines. The first line it gets says what to load; it answers when it is warm. Then, for
each ``{"runs": n}``, it runs and answers the milliseconds of each; at the end of its input it ends.
Nothing heavy is imported before the process is pinned.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

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


def main() -> None:
    """Serve until the input ends."""
    requests, replies = sys.stdin, _private_stdout()
    spec = json.loads(requests.readline())
    pin(spec["cores"])
    try:
        run, facts = _load(spec)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        _reply(replies, {"error": text})
        return
    _reply(replies, facts)
    last_ms, rested = facts["warm_ms"], time.process_time()
    for line in requests:
        idle_ms = 1e3 * (time.process_time() - rested)
        times = timed_runs(run, json.loads(line)["runs"], last_ms)
        last_ms = times[-1]
        if spec["threads"] > 1:
            settle()
        _reply(replies, {"ms": times, "idle_cpu_ms": idle_ms, "peak_rss_mb": peak_rss_mb()})
        rested = time.process_time()


def environment(threads: int) -> dict[str, str]:
    """Environment of a worker: every library's pool has the same size.

    TVM would bind its threads to cores on its own, the process's mask notwithstanding.
    """
    sizes = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **sizes, "TVM_BIND_THREADS": "0", "OPENVINO_TELEMETRY": "0"}


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


def _private_stdout() -> TextIO:
    """The real stdout for replies only; what libraries print goes to stderr."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=replies, flush=True)


if __name__ == "__main__":
    main()
