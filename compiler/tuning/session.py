"""One tuning run: its tasks, its workers, its log."""

import itertools
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm.s_tir import meta_schedule as ms
from tvm.target import Target as TvmTarget

from vitq.compiler.support.worker import Pool, Worker, WorkerError
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.compiler.tuning.bench import Attempt, Bench, LocalBench
from vitq.compiler.tuning.log import CONFIRMED, FAILED_S, WORKLOADS, Entry, commit, read_log
from vitq.compiler.tuning.measure import Inputs, available_cores, compile_kernel, save_constants
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.space import record_of
from vitq.compiler.tuning.workload import Task, space_text
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

FAILED = 10 * FAILED_S
"""What MetaSchedule records for a failure."""

Point = tuple[tuple[str, int], ...]
Job = tuple["State", Point, str | WorkerError]
"""A point of a task, and its library or why there is none."""


@dataclass(frozen=True)
class Limits:
    """When to stop and what a trial may cost.

    Attributes:
        trials: over all tasks, those in the log included; None for no limit.
        deadline: by `time.monotonic`.
        build_s: after which a compilation is given up.
        run_s: after which a measurement is given up.
        measure_s: how long a candidate is timed.
    """

    trials: int | None = None
    deadline: float = math.inf
    build_s: float = 60.0
    run_s: float = 20.0
    measure_s: float = 0.06


@dataclass
class State:
    """What is known of a task.

    Attributes:
        task: the task.
        workload: in the database.
        inputs: to time it with.
        known: every measured point.
    """

    task: Task
    workload: Any
    inputs: Inputs
    known: dict[Point, Entry] = field(default_factory=dict)

    @property
    def default(self) -> Point:
        """The untuned point."""
        return tuple(sorted(self.task.kernel.schedule().items()))

    def ranked(self) -> list[tuple[Point, Entry]]:
        """Points that work, the fastest first."""
        works = [(p, e) for p, e in self.known.items() if e.works]
        return sorted(works, key=lambda pair: pair[1].seconds)


class Session:
    """Builder, runner and log of one run.

    Args:
        tasks: to tune.
        target: what for.
        folder: of the log, held for `compiler.tuning.log.writing`.
        limits: of the run.
        threads: of the kernels.
        on_trial: called after each trial.
        predicted: the target's processor is emulated, not there.
        bench: where kernels are timed, if not on this machine.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        target: Target,
        folder: Path,
        limits: Limits,
        threads: int = 1,
        on_trial: Callable[[State], None] | None = None,
        predicted: bool = False,
        bench: Bench | None = None,
    ) -> None:
        self.target, self.limits, self.on_trial = target, limits, on_trial
        self.config = target.tvm_config()
        self.tvm_target = TvmTarget(self.config)
        self.compiler = find_compiler(target)
        self.stack = ExitStack()
        self.temporary = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="vitq-")))
        self._records = folder / RECORDS
        self.database = ms.database.JSONDatabase(
            str(folder / WORKLOADS), str(folder / RECORDS), allow_missing=True
        )
        self.states = [self._state(i, task) for i, task in enumerate(tasks)]
        self._remember(read_log(folder))
        self.started_with = self.trials
        cores = available_cores()
        environment = {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
        # Nothing is compiled while something is timed here.
        self.bench: Bench = bench or LocalBench(
            threads, environment, limits.run_s, limits.measure_s, target if predicted else None
        )
        self.builders = Pool([Worker([core], environment) for core in cores])
        self.stack.callback(self.bench.close)
        self.stack.callback(self.builders.close)
        self._numbers = itertools.count(1)
        self.finished = False
        self.stopped_by: BaseException | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _state(self, index: int, task: Task) -> State:
        path = self.temporary / f"task{index}.npz"
        save_constants(path, task.constants)
        return State(task, self.database.commit_workload(task.mod), Inputs(task.kernel, path))

    def _remember(self, log: Mapping[str, Sequence[Entry]]) -> None:
        for state in self.states:
            space = space_text(state.task.knobs)
            for entry in log.get(state.task.text, ()):
                if entry.space == space:
                    state.known[tuple(sorted(entry.values.items()))] = entry

    @property
    def trials(self) -> int:
        """Points that the log has of these tasks."""
        return sum(len(state.known) for state in self.states)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        spent = self.limits.trials is not None and self.trials >= self.limits.trials
        return spent or time.monotonic() >= self.limits.deadline

    @contextmanager
    def noting_stops(self) -> Iterator[None]:
        """Remember a Ctrl-C or a user's error: they reach the caller of TVM as another."""
        try:
            yield
        except (KeyboardInterrupt, VitqError) as stop:
            self.stopped_by = stop
            raise

    def build(self, jobs: Sequence[tuple[State, Point]]) -> list[str | WorkerError]:
        """Compile points; paths of the libraries, or what went wrong."""
        arguments = []
        for state, point in jobs:
            path = str(self.temporary / f"trial{next(self._numbers)}.so")
            arguments.append((state.task.kernel, dict(point), self.config, self.compiler, path))
        return self.builders.map(compile_kernel, arguments, self.limits.build_s)

    def measure(self, jobs: Sequence[Job]) -> list[float | WorkerError]:
        """Time points, as many at once as there are places; each is logged when it is done.

        Returns:
            Seconds, or what went wrong; also where the budget is spent before a point's turn.
        """
        results: list[float | WorkerError] = [WorkerError("the budget is spent")] * len(jobs)
        allowed = len(jobs)
        if self.limits.trials is not None:
            allowed = max(self.limits.trials - self.trials, 0)
        with ThreadPoolExecutor(self.bench.places) as threads:
            running = {
                threads.submit(self._time_one, state, built): index
                for index, (state, _, built) in enumerate(jobs[:allowed])
            }
            try:
                for future in as_completed(running):
                    index = running[future]
                    results[index] = self._log(jobs[index], future.result())
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self.bench.close()
                raise
        return results

    def _time_one(self, state: State, built: str | WorkerError) -> list[Attempt]:
        """Count the attempts at a point; none if the time is over."""
        if isinstance(built, WorkerError):
            return [Attempt([[]], error=built)]
        try:
            if time.monotonic() >= self.limits.deadline:
                return []
            return self.bench.time(state.inputs, [built], rounds=1)
        finally:
            Path(built).unlink(missing_ok=True)

    def _log(self, job: Job, attempts: Sequence[Attempt]) -> float | WorkerError:
        """Write what was measured, failures too; the last attempt counts."""
        state, point, _ = job
        result: float | WorkerError = WorkerError("the budget is spent")
        for attempt in attempts:
            found = attempt.seconds[0]
            result = found[0] if found else attempt.error or WorkerError("it failed on the device")
            if isinstance(result, WorkerError):
                logger.debug("tune: %s %s: %s", state.task.text, dict(point), result)
            self.keep(state, point, found or [FAILED], attempt.device)
        return result

    def time_in_turn(self, state: State, libraries: Sequence[str], rounds: int) -> Attempt:
        """Time libraries of one task `rounds` times, all in one place."""
        return self.bench.time(state.inputs, libraries, rounds)[-1]

    def keep(self, state: State, point: Point, seconds: Sequence[float], device: str = "") -> None:
        """Write a measurement to the log."""
        values = dict(point)
        target = TvmTarget({**self.config, "model": device}) if device else self.tvm_target
        record = record_of(state.task, state.workload, values, seconds, target)
        commit(self.database, record, self._records)
        space = space_text(state.task.knobs)
        state.known[point] = Entry(space, values, min(seconds), len(seconds) >= CONFIRMED, device)
        if self.on_trial:
            self.on_trial(state)
