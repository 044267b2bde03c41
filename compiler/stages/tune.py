"""Stage ``tune``: search for good schedules of a model's kernels, and log them for compile."""

import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitq.compiler.codegen.hardware import can_run_here
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.support.artifacts import open_artifact
from vitq.compiler.support.limits import (
    LARGEST_BATCH,
    LARGEST_COUNT,
    LARGEST_SEED,
    LONGEST_MINUTES,
    MOST_THREADS,
    check_number,
    usable_cores,
)
from vitq.compiler.target.choice import NATIVE, get_target
from vitq.compiler.target.host import host_flags, missing_flags
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.compiler.tuning.places import own_log
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_writable

logger = logging.getLogger(__name__)

TRIALS_PER_TASK = 32


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to tune.

    Attributes:
        target: what for.
        batch: static batch size.
        trials: over all tasks, those already in the log included; `TRIALS_PER_TASK` for each if
            neither this nor `minutes` is given.
        minutes: of searching; the last batch may take some seconds more.
        threads: that a kernel runs on.
        log: folder of the log; None for the checkout's own, or the user's where the
            package is installed (`compiler.tuning.places`).
        seed: of the search.
        prune: keep only the best records of each task in the log.
        tracker: of the devices to measure on; None for this machine.
        results: of a kit that ran on a GPU machine: nothing is measured here.
    """

    target: Target = field(default_factory=lambda: get_target(NATIVE))
    batch: int = 1
    trials: int | None = None
    minutes: float | None = None
    threads: int = 1
    log: Path | None = None
    seed: int = 0
    prune: bool = False
    tracker: Tracker | None = None
    results: Path | None = None

    def __post_init__(self) -> None:
        """Refuse budgets and sizes that are none."""
        limits = {"batch": LARGEST_BATCH, "trials": LARGEST_COUNT, "threads": MOST_THREADS}
        for name, most in limits.items():
            check_number(f"--{name}", getattr(self, name), 1, most)
        least = math.ulp(0.0)
        check_number(
            "--minutes", self.minutes, least, LONGEST_MINUTES, "more than 0, a year at most"
        )
        check_number("--seed", self.seed, 0, LARGEST_SEED)


@dataclass(frozen=True)
class TaskResult:
    """What a task came to.

    Attributes:
        task: its text.
        calls: in one run of the model.
        trials: points in the log.
        failed: of them.
        untuned_us: time of the default schedule; NaN if it failed.
        tuned_us: of the best one.
        values: of the best one's knobs.
    """

    task: str
    calls: int
    trials: int
    failed: int
    untuned_us: float
    tuned_us: float
    values: dict[str, int]

    @property
    def gain(self) -> float:
        """How many times faster."""
        return self.untuned_us / self.tuned_us

    def to_json(self) -> dict[str, Any]:
        """All fields, and the gain."""
        return {**asdict(self), "gain": self.gain}


@dataclass(frozen=True)
class TuneResult:
    """What a run came to.

    Attributes:
        log: folder of the records.
        tasks: each task.
        new_trials: made by this run.
        seconds: that it took.
    """

    log: Path
    tasks: tuple[TaskResult, ...]
    new_trials: int
    seconds: float

    @property
    def untuned_us(self) -> float:
        """Time of all calls of tuned kernels in one run of the model, by default schedules."""
        return sum(task.calls * task.untuned_us for task in self._measured)

    @property
    def tuned_us(self) -> float:
        """Time of the same calls, tuned."""
        return sum(task.calls * task.tuned_us for task in self._measured)

    @property
    def _measured(self) -> list[TaskResult]:
        """Tasks that the budget was enough for."""
        return [task for task in self.tasks if not math.isnan(task.untuned_us)]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "log": str(self.log),
            "new_trials": self.new_trials,
            "seconds": self.seconds,
            "untuned_us": self.untuned_us,
            "tuned_us": self.tuned_us,
            "tasks": [task.to_json() for task in self.tasks],
        }


def tune(folder: Path, options: TuneOptions) -> TuneResult:
    """Run the stage; a run that was ended goes on where it was.

    Args:
        folder: the artifact's.
        options: target and budget.

    Returns:
        Each task's best.

    Raises:
        VitqError: no artifact, nothing to tune, nothing here or behind the tracker can run the
            target's code, or another process tunes into the same log.
    """
    from vitq.compiler.support.compat import check_versions

    target = options.target
    require_writable((options.log or own_log(target)) / "x")
    if not options.tracker and options.results is None:
        usable_cores(options.threads)
    if options.tracker:
        find_compiler(target)
        options.tracker.require_devices()
    elif options.results is None:
        require_measurable(target)
    artifact = open_artifact(folder)
    if not artifact.onnx.is_file():
        raise VitqError(f"{artifact.folder} has no {artifact.onnx.name}: run export first")
    check_versions()
    from vitq.compiler.tuning.workload import extract

    model = import_model(artifact.onnx, Meaning(options.batch))
    tasks = extract(model.integer.mod, target.features, target.tvm_config())
    if not tasks:
        raise VitqError(f"no kernel of {artifact.folder} has anything to tune for {target.name}")
    if options.results is not None:
        return _import(tasks, target, options, options.results)
    return tune_tasks(tasks, target, options)


def _import(tasks: list[Any], target: Target, options: TuneOptions, path: Path) -> TuneResult:
    """Log a kit's results, and tell what the log then says of each task."""
    from vitq.compiler.tuning.log import read_log
    from vitq.compiler.tuning.offline import import_results
    from vitq.compiler.tuning.places import begin_own_log

    started = time.monotonic()
    log = options.log or begin_own_log(target)
    count = import_results(path, tasks, target, log, options.prune)
    entries = read_log(log)
    results = tuple(_summary(task, entries.get(task.text, [])) for task in tasks)
    return TuneResult(log, results, count, time.monotonic() - started)


def _summary(task: Any, entries: list[Any]) -> TaskResult:
    from vitq.compiler.tuning.schedules import best

    works = [entry for entry in entries if entry.works]
    untuned = [entry for entry in works if entry.values == task.kernel.schedule()]
    chosen = best(works) if works else None
    return TaskResult(
        task.text,
        task.calls,
        len(entries),
        len(entries) - len(works),
        1e6 * untuned[-1].seconds if untuned else math.nan,
        1e6 * chosen.seconds if chosen else math.nan,
        chosen.values if chosen else {},
    )


def require_measurable(target: Target) -> None:
    """Refuse a target whose kernels can neither run here nor be emulated.

    Raises:
        VitqError: what is missing.
    """
    from vitq.compiler.target.qemu import why_not

    if can_run_here(target):
        return
    if target.gpu is not None:
        from vitq.compiler.nvidia.driver import why_not_here

        raise VitqError(
            f"target {target.name} cannot be tuned here: {why_not_here(target.gpu)}; or make a kit "
            "(vitq kit --candidates 24), run it there, and give its results with --results"
        )
    if missing := why_not(target):
        lacking = ", ".join(missing_flags(target, host_flags()))
        raise VitqError(
            f"target {target.name} cannot be tuned here: this processor lacks {lacking}, "
            f"and {missing}"
        )


def tune_tasks(tasks: list[Any], target: Target, options: TuneOptions) -> TuneResult:
    """Tune given tasks (`compiler.tuning.workload.extract`)."""
    from vitq.compiler.tuning.log import prune, writing
    from vitq.compiler.tuning.places import begin_own_log
    from vitq.compiler.tuning.progress import Progress
    from vitq.compiler.tuning.search import confirm, measure_defaults, search
    from vitq.compiler.tuning.session import Session

    started = time.monotonic()
    log = options.log or begin_own_log(target)
    limits = _limits(options, len(tasks), started)
    times, processor, bench = _where(target, options, limits)
    predicted = bench is None and not can_run_here(target)
    with (
        writing(log, target, times, processor),
        Session(
            tasks, target, log, limits, options.threads, predicted=predicted, bench=bench
        ) as session,
    ):
        logger.info(
            "tune: %d tasks, %d trials in %s already", len(tasks), session.started_with, log
        )
        with Progress(session) as progress:
            session.on_trial = progress.show
            measure_defaults(session)
            search(session, options.seed)
            confirm(session)
        results = tuple(_result(state) for state in session.states)
        made = session.trials - session.started_with
        if options.prune:
            dropped = prune(log, {state.task.text: dict(state.default) for state in session.states})
            logger.info("tune: dropped %d records that are not among the best", dropped)
    seconds = time.monotonic() - started
    logger.info("tune: %d new trials in %s (%.1f s)", made, log, seconds)
    return TuneResult(log, results, made, seconds)


def _where(target: Target, options: TuneOptions, limits: Any) -> tuple[str, str | None, Any]:
    """Kind of the times, processor that they are of (None for this one), bench if not here."""
    from vitq.compiler.tuning.log import EMULATED, MEASURED, PREDICTED

    if options.tracker is None:
        return MEASURED if can_run_here(target) else PREDICTED, None, None
    from vitq.compiler.remote.fleet import Fleet, probe

    device = probe(options.tracker, target)
    if device.emulated and options.log is None:
        raise VitqError(
            f"device {device.title}: its times mean nothing for {target.name}; to try the way "
            "anyway, give a folder for them with --log"
        )
    fleet = Fleet(options.tracker, target, device, options.threads, limits.run_s, limits.measure_s)
    return EMULATED if device.emulated else MEASURED, device.processor, fleet


def _limits(options: TuneOptions, tasks: int, started: float) -> Any:
    from vitq.compiler.tuning.session import Limits

    trials = options.trials
    if trials is None and options.minutes is None:
        trials = TRIALS_PER_TASK * tasks
    deadline = math.inf if options.minutes is None else started + 60 * options.minutes
    return Limits(trials, deadline)


def _result(state: Any) -> TaskResult:
    from vitq.compiler.tuning.schedules import best

    works = [entry for entry in state.known.values() if entry.works]
    untuned = state.known.get(state.default)
    chosen = best(works) if works else None
    return TaskResult(
        state.task.text,
        state.task.calls,
        len(state.known),
        len(state.known) - len(works),
        1e6 * untuned.seconds if untuned and untuned.works else math.nan,
        1e6 * chosen.seconds if chosen else math.nan,
        chosen.values if chosen else {},
    )
