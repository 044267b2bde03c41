"""Where records lie: MetaSchedule's two JSON files and a ``meta.json``, one folder for each target.

    tuning_logs/<target>/database_workload.json        one line for each workload
    tuning_logs/<target>/database_tuning_record.json   one line for each measurement
    tuning_logs/<target>/meta.json                     TVM version, target, processor, date,
                                                       whether times were measured or predicted

Lines are only ever appended, so that a killed process loses at most the line it was writing.
Of a point that was measured more than once, the last measurement counts.
"""

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitq.compiler.support.artifacts import fingerprint, read_json, write_json
from vitq.compiler.support.compat import TVM_VERSION
from vitq.compiler.target.host import host_cpu
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.places import RECORDS, entry_name, is_log, known_log, nearest_log
from vitq.numerics.errors import VitqError, reason
from vitq.numerics.files import write_atomically

logger = logging.getLogger(__name__)

WORKLOADS = "database_workload.json"
META = "meta.json"
PREFIX = "vitq."
"""Of the annotations that carry knobs."""
FAILED_S = 1e9
"""MetaSchedule records a failure as 1e10 seconds."""
MEASURED = "measured"
PREDICTED = (
    "predicted: cycles that the processor's ports need, counted under emulation, as if at 1 GHz"
)
EMULATED = "emulated: measured on devices that are emulated, which says nothing of a processor"
"""What ``meta.json`` says of the times."""
CONFIRMED = 2
"""A record with at least that many times was measured in turn with its rivals."""


@dataclass(frozen=True)
class Entry:
    """A measured point.

    Attributes:
        space: the knobs it was chosen from (`workload.space_text`).
        values: of its knobs.
        seconds: the lowest of its times; at least `FAILED_S` if it failed.
        confirmed: whether it was measured in turn with its rivals.
        device: that it was measured on, where that was not the machine that tuned.
    """

    space: str
    values: dict[str, int]
    seconds: float
    confirmed: bool
    device: str = ""

    @property
    def works(self) -> bool:
        """Whether it was built and ran."""
        return self.seconds < FAILED_S


def describe(target: Target, times: str, processor: str | None = None) -> dict[str, Any]:
    """Return the content of ``meta.json``.

    Args:
        target: of the log.
        times: `MEASURED`, `PREDICTED` or `EMULATED`.
        processor: that was measured on; None for this machine's.
    """
    return {
        "tvm_version": TVM_VERSION,
        "target": entry_name(target),
        "target_config": target.tvm_config(),
        "times": times,
        "host_cpu": processor or host_cpu(),
        "date": time.strftime("%Y-%m-%d"),
    }


def check_meta(folder: Path, target: Target) -> None:
    """Refuse a log that says nothing about what is being compiled.

    Raises:
        VitqError: of another TVM or another target, or no ``meta.json``.
    """
    if not (folder / META).is_file():
        raise VitqError(f"{folder} is no tuning log: it has no {META}")
    found, wanted = read_json(folder / META), describe(target, MEASURED)
    for key, what in (("tvm_version", "TVM"), ("target", "target"), ("target_config", "target")):
        if found.get(key) != wanted[key]:
            raise VitqError(
                f"tuning log {folder} is of {what} {found.get(key)}, not {wanted[key]}: "
                "tune again, or compile with --untuned"
            )


def log_hash(folder: Path | None) -> str | None:
    """Hash of what a log says, for a stage's fingerprint; None for no log."""
    if folder is None:
        return None
    return fingerprint({
        name: (folder / name).read_text() for name in (META, WORKLOADS, RECORDS)
        if (folder / name).is_file()
    })  # fmt: skip


def find_log(target: Target, tuned: bool, given: Path | None) -> Path | None:
    """Return the log that a library is compiled with.

    Args:
        target: of the library.
        tuned: whether any is wanted.
        given: by the user, instead of the shipped one.

    Returns:
        Its folder; None if there is none.

    Raises:
        VitqError: the given folder is no log, or a log is of another TVM or target.
    """
    if not tuned:
        return None
    folder = given or known_log(target)
    if given is not None and not is_log(given):
        raise VitqError(f"{given} is no tuning log: run tune first, or leave --tuning-log out")
    if given is None and not is_log(folder) and (nearest := nearest_log(target)):
        logger.info("schedules: no log for %s, %s is the nearest", entry_name(target), nearest)
        return nearest
    if not is_log(folder):
        return None
    check_meta(folder, target)
    return folder


def read_log(folder: Path) -> dict[str, list[Entry]]:
    """All points of a log.

    Args:
        folder: of the log.

    Returns:
        For each task's text its points, each once, in order of first measurement.

    Raises:
        VitqError: damaged in more than its last line.
    """
    spaces = [
        _workload_of(line, f"{folder / WORKLOADS}, line {number}")
        for number, line in enumerate(_lines(folder / WORKLOADS), 1)
    ]
    tasks: dict[str, dict[tuple[Any, ...], Entry]] = {}
    for number, line in enumerate(_lines(folder / RECORDS), 1):
        try:
            index, (trace, times, target, *_) = line
            task, space = spaces[index]
            values = _values(trace)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise VitqError(f"{folder / RECORDS}, line {number}: not a record ({error})") from error
        point = (space, *sorted(values.items()))
        device = str(target.get("model", ""))
        tasks.setdefault(task, {})[point] = _entry(space, values, times, device)
    return {task: list(entries.values()) for task, entries in tasks.items()}


def _lines(path: Path) -> Iterator[Any]:
    """Return the JSON of each line; a torn last line is left out."""
    if not path.is_file():
        return
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise VitqError(f"{path}, line {number} is damaged: {error}") from error


def _workload_of(line: Any, called: str) -> tuple[str, str]:
    """Task and space of a workload.

    Raises:
        VitqError: TVM cannot read it.
    """
    from tvm.s_tir.meta_schedule.database import Workload

    from vitq.compiler.tuning.workload import SPACE, TASK

    try:
        attributes = Workload.from_json(line).mod["main"].attrs
        return str(attributes[TASK]), str(attributes[SPACE])
    except Exception as error:  # TVM's own, of any kind
        raise VitqError(f"{called}: not a workload ({reason(error)})") from error


def _values(trace: Any) -> dict[str, int]:
    """Return what a trace decides, read from its JSON without replaying it."""
    instructions, decisions = trace
    decided = dict(decisions)
    chosen: dict[str, int] = {}
    values: dict[str, int] = {}
    for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
        if kind == "SampleCategorical":
            chosen[outputs[0]] = int(attributes[0][decided[index]])
        elif kind == "Annotate" and attributes[0].startswith(PREFIX):
            values[attributes[0].removeprefix(PREFIX)] = chosen[inputs[1]]
    return values


@contextmanager
def writing(
    folder: Path, target: Target, times: str = MEASURED, processor: str | None = None
) -> Iterator[None]:
    """Hold a log for writing: made, checked, mended, and locked against other processes.

    Args:
        folder: of the log.
        target: of the log.
        times: what is going to be written.
        processor: see `describe`.

    Raises:
        VitqError: another process writes it, it is of another TVM or target, or measured times
            and predicted ones would come together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise VitqError(f"another process is tuning into {folder}: wait for it") from error
        if (folder / META).is_file() or is_log(folder):
            check_meta(folder, target)
            known = read_json(folder / META)
            if known.get("times", MEASURED) != times:
                raise VitqError(
                    f"the times in {folder} are {known['times'].partition(':')[0]}, not "
                    f"{times.partition(':')[0]}: give another folder with --log"
                )
            measured_on = known.get("host_cpu")
            if times == MEASURED and measured_on != (processor or host_cpu()):
                logger.warning("tune: %s is of another processor, %s", folder, measured_on)
        write_json(folder / META, describe(target, times, processor))
        for name in (WORKLOADS, RECORDS):
            mend(folder / name)
        yield
    finally:
        os.close(handle)


def commit(database: Any, record: Any, records: Path) -> None:
    """Append a record to a log; TVM itself says nothing of a disk that is full.

    Args:
        database: TVM's, of the log's files.
        record: to append.
        records: the file of records.

    Raises:
        OSError: the line is not there, or not as a whole.
    """
    before = records.stat().st_size if records.is_file() else 0
    database.commit_tuning_record(record)
    added = b""
    if records.is_file():
        with records.open("rb") as file:
            file.seek(before)
            added = file.read()
    if not added.endswith(b"\n"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(records))


def mend(path: Path) -> bool:
    """Drop a last line that a killed process did not finish.

    Returns:
        Whether there was one.
    """
    content = path.read_bytes() if path.is_file() else b""
    whole, _, last = content.rpartition(b"\n")
    if not last:
        return False
    try:
        json.loads(last)
    except ValueError:
        kept = whole + b"\n" if whole else b""
        logger.info(
            "tune: dropped an unfinished line of %d bytes at the end of %s", len(last), path
        )
    else:
        kept = content + b"\n"
    write_atomically(path, kept)
    return kept != content + b"\n"


def prune(folder: Path, untuned: Mapping[str, Mapping[str, int]], best: int = 3) -> int:
    """Keep only what is worth shipping: of each task its best points, and the untuned one.

    Args:
        folder: of the log, held for `writing`.
        untuned: for each task's text the untuned point.
        best: points of each task.

    Returns:
        Records dropped.
    """
    lines = (folder / RECORDS).read_text().splitlines()
    place = folder / WORKLOADS
    tasks = [_workload_of(line, str(place))[0] for line in _lines(place)]
    points: dict[int, dict[Any, tuple[Entry, str]]] = {}
    for text in lines:
        index, (trace, times, *_) = json.loads(text)
        values = _values(trace)
        entry = _entry("", values, times)
        points.setdefault(index, {})[tuple(sorted(values.items()))] = entry, text
    kept: list[str] = []
    for index, found in sorted(points.items()):
        ranked = sorted(found.values(), key=lambda pair: (not pair[0].confirmed, pair[0].seconds))
        kept += [
            text
            for place, (entry, text) in enumerate(ranked)
            if entry.works and (place < best or entry.values == untuned.get(tasks[index]))
        ]
    write_atomically(folder / RECORDS, "".join(f"{text}\n" for text in kept))
    return len(lines) - len(kept)


def _entry(
    space: str, values: dict[str, int], times: Sequence[float] | None, device: str = ""
) -> Entry:
    seconds = min(times or [10 * FAILED_S])
    return Entry(space, values, seconds, len(times or ()) >= CONFIRMED, device)
