"""One tuning run: its tasks, its workers, its log."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm.s_tir import meta_schedule as ms
from tvm.target import Target as TvmTarget

from compiler.targets import Target, find_compiler
from compiler.tuning.log import CONFIRMED, FAILED_S, RECORDS, WORKLOADS, Entry, read_log
from compiler.tuning.measure import (
    Inputs,
    available_cores,
    compile_kernel,
    predict_kernel,
    save_constants,
    time_kernel,
)
from compiler.tuning.space import record_of
from compiler.tuning.worker import Pool, Worker, WorkerError
from compiler.tuning.workload import Task, space_text

logger = logging.getLogger(__name__)

FAILED = 10 * FAILED_S
"""What MetaSchedule records for a failure."""

Point = tuple[tuple[str, int], ...]


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
    ) -> None:
        self.target, self.limits, self.on_trial = target, limits, on_trial
        self.predicted = predicted
        self.config = target.tvm_config()
        self.tvm_target = TvmTarget(self.config)
        self.compiler = find_compiler(target)
        self.stack = ExitStack()
        self.temporary = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="vitq-")))
        self.database = ms.database.JSONDatabase(
            str(folder / WORKLOADS), str(folder / RECORDS), allow_missing=True
        )
        self.states = [self._state(i, task) for i, task in enumerate(tasks)]
        self._remember(read_log(folder))
        self.started_with = self.trials
        cores = available_cores()
        environment = {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
        # Nothing is compiled while something is timed.
        self.runner = Worker(cores[:threads], environment)
        self.builders = Pool([Worker([core], environment) for core in cores])
        self.stack.callback(self.runner.close)
        self.stack.callback(self.builders.close)
        self.number = 0
        self.finished = False
        self.interrupted = False

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
    def noting_interrupts(self) -> Iterator[None]:
        """Remember a Ctrl-C, which reaches the caller of TVM as some other error."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def build(self, jobs: Sequence[tuple[State, Point]]) -> list[str | WorkerError]:
        """Compile points; paths of the libraries, or what went wrong."""
        arguments = []
        for state, point in jobs:
            self.number += 1
            path = str(self.temporary / f"trial{self.number}.so")
            arguments.append((state.task.kernel, dict(point), self.config, self.compiler, path))
        return self.builders.map(compile_kernel, arguments, self.limits.build_s)

    def time(self, state: State, built: str | WorkerError) -> float:
        """Seconds of a built point, measured or predicted.

        Raises:
            WorkerError: it could not be built or run.
        """
        if isinstance(built, WorkerError):
            raise built
        if self.predicted:
            return self.runner.call(
                predict_kernel, built, state.inputs, self.target, timeout_s=self.limits.run_s
            )
        return self.runner.call(
            time_kernel, built, state.inputs, self.limits.measure_s, timeout_s=self.limits.run_s
        )

    def keep(self, state: State, point: Point, seconds: Sequence[float]) -> None:
        """Write a measurement to the log."""
        values = dict(point)
        self.database.commit_tuning_record(
            record_of(state.task, state.workload, values, seconds, self.tvm_target)
        )
        space = space_text(state.task.knobs)
        state.known[point] = Entry(space, values, min(seconds), len(seconds) >= CONFIRMED)
        if self.on_trial:
            self.on_trial(state)

    def try_point(
        self, state: State, point: Point, built: str | WorkerError
    ) -> float | WorkerError:
        """Time a built point and log it, a failure too."""
        try:
            seconds = self.time(state, built)
        except WorkerError as error:
            logger.debug("tune: %s %s: %s", state.task.text, dict(point), error)
            self.keep(state, point, [FAILED])
            return error
        finally:
            if isinstance(built, str):
                Path(built).unlink(missing_ok=True)
        self.keep(state, point, [seconds])
        return seconds
