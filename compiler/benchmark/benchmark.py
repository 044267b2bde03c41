"""The stage: prepare every contestant, measure all of them in turn, describe the machine."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from vitq.compiler.benchmark.contestants import CONTESTANTS, Contestant
from vitq.compiler.benchmark.isolation import T, isolated
from vitq.compiler.benchmark.machine import describe_machine
from vitq.compiler.benchmark.measuring import Entry, Key, measure, one_line
from vitq.compiler.benchmark.prepare import Task, vitq_tuned
from vitq.compiler.benchmark.profiling import Profile, profile
from vitq.compiler.benchmark.rounds import Row
from vitq.compiler.benchmark.scaling import Scaling, check_sizes, measure_scaling
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.support.artifacts import METADATA_NAME, Artifact, open_artifact, read_json
from vitq.compiler.support.extras import EXTRA, installed
from vitq.compiler.support.limits import usable_cores
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError, nearest

logger = logging.getLogger(__name__)

ROUNDS = 20
OWN = "vitq-int8-tuned"


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured.

    Attributes:
        target: of the integer library; None for that of the given folder, or this machine.
        batches: static batch sizes.
        threads: numbers of threads, each pinned to as many cores.
        contestants: names of the table.
        rounds: over all contestants.
        profile: measure every kernel of the tuned library, for each batch size.
        scaling: picture sizes to measure growth over, or none.
        tracker: of the devices of which one is measured; None for this machine. An empty key
            stands for the target's name.
        beside: folders of further artifacts, whose tuned libraries take part.
    """

    target: str | None = None
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    contestants: tuple[str, ...] = tuple(CONTESTANTS)
    rounds: int = ROUNDS
    profile: bool = False
    scaling: tuple[int, ...] = ()
    tracker: Tracker | None = None
    beside: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        unknown = [name for name in self.contestants if name not in CONTESTANTS]
        if unknown:
            raise VitqError(
                f"contestant {unknown[0]!r} is unknown{nearest(unknown[0], CONTESTANTS)}: "
                f"choose {', '.join(CONTESTANTS)}"
            )
        if self.rounds < 1:
            raise VitqError(f"--rounds {self.rounds}: give at least 1")
        for batch in self.batches:
            if batch < 1:
                raise VitqError(f"batch {batch}: give at least 1")
        if self.tracker and (self.profile or self.scaling):
            raise VitqError("--profile and --scaling measure this machine: leave out --tracker")
        for threads in () if self.tracker else self.threads:
            usable_cores(threads)
        if self.target is not None:
            get_target(self.target)
        if self.scaling:
            check_sizes(self.scaling)


@dataclass(frozen=True)
class Report:
    """Everything measured.

    Attributes:
        artifact: the model's folder.
        machine: from `compiler.benchmark.machine.describe_machine`.
        rows: one for each contestant, batch and number of threads.
        skipped: ``name``, ``batch``, ``threads``, ``reason`` of those that did not run.
        profiles: one for each batch size, if wanted.
        scaling: over picture sizes, if wanted.
    """

    artifact: Path
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    scaling: Scaling | None = None

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "artifact": str(self.artifact),
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "skipped": self.skipped,
            "profiles": [profile.to_json() for profile in self.profiles],
            "scaling": None if self.scaling is None else self.scaling.to_json(),
        }


def benchmark(folder: Path, options: BenchmarkOptions) -> Report:
    """Run the stage.

    Args:
        folder: an artifact's folder, or a target's in it.
        options: what to measure.

    Returns:
        The rows, and who was skipped and why.

    Raises:
        VitqError: no artifact there, or it was not exported.
    """
    artifact, target = open_for(folder, options.target)
    if options.tracker:
        return _benchmark_there(artifact, target, options.tracker, options)
    report = Report(artifact.folder, describe_machine(usable_cores(max(options.threads))))
    tasks = [Task(artifact, target, batch) for batch in options.batches]
    ready, reasons = prepare_all(tasks, options.contestants, options.beside)
    for threads in options.threads:
        measured, failed = measure(ready, threads, options.rounds)
        _add(report, threads, measured, {**reasons, **failed})
    for task in tasks if options.profile else ():
        found = _attempt(report, "profile", task, options, _profile)
        report.profiles.extend([] if found is None else [found])
    if options.scaling:
        task = Task(artifact, target, 1)
        return replace(report, scaling=_attempt(report, "scaling", task, options, _scaling))
    return report


def _benchmark_there(
    artifact: Artifact, target: str, tracker: Tracker, options: BenchmarkOptions
) -> Report:
    """Return the rows of a device; a contestant that is no library of TVM's is skipped."""
    from vitq.compiler.benchmark.remote import LOADERS, NOT_THERE, describe_there, device_for
    from vitq.compiler.benchmark.remote import measure_there as measure

    tracker = replace(tracker, key=tracker.key or target)
    tracker.require_devices()
    names = [n for n in options.contestants if CONTESTANTS[n].loader in LOADERS]
    tasks = [Task(artifact, target, batch) for batch in options.batches]
    ready, reasons = prepare_all(tasks, tuple(names), options.beside)
    for task, name in product(tasks, set(options.contestants) - set(names)):
        reasons[name, task.batch] = NOT_THERE
    with device_for(tracker, target) as session:
        report = Report(artifact.folder, describe_there(session[1]))
        for threads in options.threads:
            measured, failed = measure(session, ready, threads, options.rounds)
            _add(report, threads, measured, {**reasons, **failed})
    return report


def _add(report: Report, threads: int, rows: list[Row], skipped: dict[Key, str]) -> None:
    """Return what one number of threads came to."""
    report.rows.extend(rows)
    for (name, batch), reason in skipped.items():
        entry = {"name": name, "batch": batch, "threads": threads, "reason": reason}
        report.skipped.append(entry)


def _attempt(
    report: Report,
    name: str,
    task: Task,
    options: BenchmarkOptions,
    function: Callable[[Task, BenchmarkOptions], T],
) -> T | None:
    """Measure a part whose failure must not cost what was measured before it."""
    logger.info("benchmark: %s, batch %d", name, task.batch)
    try:
        return function(task, options)
    except Exception as error:
        logger.debug("benchmark: %s", name, exc_info=True)
        report.skipped.append({
            "name": name,
            "batch": task.batch,
            "threads": options.threads[0],
            "reason": one_line(error),
        })
        return None


def _profile(task: Task, options: BenchmarkOptions) -> Profile:
    threads = options.threads[0]
    folder = isolated(vitq_tuned, task)
    return isolated(profile, folder, threads, usable_cores(threads))


def _scaling(task: Task, options: BenchmarkOptions) -> Scaling:
    return measure_scaling(task.artifact, task.target, options.scaling, options.threads[0])


def open_for(folder: Path, target: str | None) -> tuple[Artifact, str]:
    """Find the artifact, and the target: as given, the folder's own, or this machine's.

    Raises:
        VitqError: no artifact, or not exported yet.
    """
    artifact = open_artifact(folder)
    if not artifact.onnx.is_file():
        raise VitqError(f"{artifact.folder} has no {artifact.onnx.name}: run export first")
    metadata = folder / METADATA_NAME
    if target is None and metadata.is_file():
        target = str(read_json(metadata)["target"])
    return artifact, target or "cpu"


def prepare_all(
    tasks: Sequence[Task], names: tuple[str, ...], beside: tuple[Path, ...] = ()
) -> tuple[list[Entry], dict[Key, str]]:
    """Build what the contestants load.

    Args:
        tasks: of one artifact and target.
        names: of contestants.
        beside: folders of further artifacts, whose tuned libraries take part, called by model and
            recipe.

    Returns:
        Those that are ready, and the reasons of those that are not.

    Raises:
        VitqError: a folder in `beside` is no artifact, or it was not exported.
    """
    pairs = [(CONTESTANTS[name], task) for task, name in product(tasks, names)]
    for folder in beside:
        artifact, _ = open_for(folder, None)
        name = "/".join(artifact.folder.resolve().parts[-2:])
        own = replace(CONTESTANTS[OWN], name=name)
        pairs += [(own, replace(task, artifact=artifact)) for task in tasks]
    ready: list[Entry] = []
    reasons: dict[Key, str] = {}
    for contestant, task in pairs:
        key = contestant.name, task.batch
        try:
            ready.append(Entry(contestant, task, _prepare(contestant, task)))
        except Exception as error:
            reasons[key] = one_line(error)
    for (name, batch), reason in reasons.items():
        logger.warning("benchmark: %s, batch %d, is skipped: %s", name, batch, reason)
    return ready, reasons


def _prepare(contestant: Contestant, task: Task) -> Path:
    """Build what one contestant loads, in another process."""
    missing = [package for package in contestant.packages if installed(package) is None]
    if missing:
        raise VitqError(f"{', '.join(missing)} not installed: pip install 'vitq[{EXTRA}]'")
    logger.info("benchmark: preparing %s for batch %d", contestant.name, task.batch)
    return isolated(contestant.prepare, task)
