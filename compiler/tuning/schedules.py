"""The schedules of a library: what a log knows, and the default for the rest."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.tuning.log import Entry, read_log
from vitq.compiler.tuning.workload import task_text

logger = logging.getLogger(__name__)

LOG = "log"
UNTUNED = "default: untuned"
NO_RECORD = "default: no record"
STALE = "default: stale record"
NO_KNOBS = "default: no knobs"


@dataclass(frozen=True)
class Applied:
    """Where a kernel's schedule came from.

    Attributes:
        name: the kernel's in the library.
        task: its task's text.
        source: `LOG`, or why it has the default.
        values: of all knobs.
    """

    name: str
    task: str
    source: str
    values: dict[str, int]


class Schedules:
    """`compiler.codegen.lower_kernels.Choose` that remembers what it chose.

    Args:
        entries: of a log (`compiler.tuning.log.read_log`); None for an untuned library.
        log: where they are from, for the summary.
    """

    def __init__(
        self, entries: Mapping[str, Sequence[Entry]] | None, log: Path | None = None
    ) -> None:
        self.entries = entries
        self.log = log
        self.applied: list[Applied] = []

    def __call__(self, kernel: Kernel) -> Schedule:
        """Return the values for a kernel."""
        task = task_text(kernel)
        source, chosen = self._choose(kernel, task)
        same = sum(known.name.rpartition("_")[0] == kernel.name for known in self.applied)
        values = kernel.schedule(chosen)
        self.applied.append(Applied(f"{kernel.name}_{same}", task, source, values))
        return chosen

    def _choose(self, kernel: Kernel, task: str) -> tuple[str, Schedule]:
        if not kernel.is_tunable:
            return NO_KNOBS, {}
        if self.entries is None:
            return UNTUNED, {}
        found = _working(self.entries, kernel)
        if not found:
            return NO_RECORD, {}
        usable = [entry for entry in found if is_valid(kernel, entry.values)]
        if not usable:
            return STALE, {}
        return LOG, best(usable).values

    def to_json(self) -> list[dict[str, Any]]:
        """For the metadata."""
        return [asdict(applied) for applied in self.applied]

    def summary(self) -> str:
        """One line: how many schedules are from where."""
        counts = Counter(applied.source for applied in self.applied)
        tuned = counts.pop(LOG, 0)
        reasons = Counter({reason.removeprefix("default: "): n for reason, n in counts.items()})
        rest = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
        origin = f" from {self.log}" if tuned and self.log else ""
        default = f", {reasons.total()} default ({rest})" if rest else ""
        return f"schedules: {tuned}{origin}{default}"


def _working(entries: Mapping[str, Sequence[Entry]], kernel: Kernel) -> list[Entry]:
    """Return the points of a log for a kernel's task, or for the nearest one that it knows."""
    found = entries.get(task_text(kernel)) or entries.get(task_text(kernel, facts=False), ())
    return [entry for entry in found if entry.works]


def best_schedules(
    entries: Mapping[str, Sequence[Entry]], kernel: Kernel, count: int
) -> list[dict[str, int]]:
    """Return the best points of a log for a kernel, the one that compile takes first.

    Args:
        entries: of the log.
        kernel: which.
        count: at most so many.
    """
    usable = [entry for entry in _working(entries, kernel) if is_valid(kernel, entry.values)]
    usable.sort(key=_rank)
    return [kernel.schedule(entry.values) for entry in usable[:count]]


def is_valid(kernel: Kernel, values: Mapping[str, int]) -> bool:
    """Whether a kernel's template still has these values."""
    knobs = kernel.knobs()
    return all(name in knobs and value in knobs[name].choices for name, value in values.items())


def best(entries: Sequence[Entry]) -> Entry:
    """Choose the fastest; where some were measured in turn with rivals, the fastest of those."""
    return min(entries, key=_rank)


def _rank(entry: Entry) -> tuple[bool, float]:
    return not entry.confirmed, entry.seconds


def open_schedules(log: Path | None, tuned: bool) -> Schedules:
    """Return the schedules of a log (`find_log`), or the defaults."""
    if not tuned:
        return Schedules(None)
    return Schedules({} if log is None else read_log(log), log)
