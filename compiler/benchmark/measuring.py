"""All contestants of one number of threads, started together and measured in turn.

Every batch size takes part in the same rounds, so that throughput can be compared between them.
"""

import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.benchmark.contestants import Contestant
from vitq.compiler.benchmark.machine import MIB
from vitq.compiler.benchmark.prepare import FOLDER, Task, pictures
from vitq.compiler.benchmark.rounds import ContestantProcess, Key, Row, run_rounds, summarize
from vitq.compiler.support.artifacts import LIBRARY_NAME
from vitq.compiler.support.limits import usable_cores
from vitq.compiler.support.worker import WorkerError
from vitq.numerics.files import write_atomically


@dataclass(frozen=True)
class Entry:
    """A contestant that is ready to be loaded.

    Attributes:
        contestant: of the table.
        task: model, target, batch.
        path: of what its worker loads.
    """

    contestant: Contestant
    task: Task
    path: Path

    @property
    def key(self) -> Key:
        """Name and batch."""
        return self.contestant.name, self.task.batch


def measure(entries: list[Entry], threads: int, rounds: int) -> tuple[list[Row], dict[Key, str]]:
    """Start all workers, run the rounds, stop all workers.

    Returns:
        A row for each that ran, the reason for each that did not.
    """
    workers: dict[Key, ContestantProcess] = {}
    failed: dict[Key, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for entry in entries:
                spec = _spec(entry, _write_inputs(entry.task, Path(scratch)), threads)
                try:
                    workers[entry.key] = ContestantProcess(spec)
                except WorkerError as error:
                    failed[entry.key] = one_line(error)
            failed |= run_rounds(workers, rounds)
        finally:
            for worker in workers.values():
                worker.close()
    sizes = {entry.key: model_size(entry.path) / MIB for entry in entries}
    rows = [summarize(key, threads, worker, sizes[key]) for key, worker in workers.items()]
    return rows, failed


def _spec(entry: Entry, inputs: Path, threads: int) -> dict[str, Any]:
    """Return what `compiler.benchmark.turns.load` reads."""
    return {
        "loader": entry.contestant.loader,
        "path": str(entry.path),
        "artifact": str(entry.task.artifact.folder),
        "inputs": str(inputs),
        "hints": entry.contestant.hints,
        "threads": threads,
        "cores": usable_cores(threads),
    }


def _write_inputs(task: Task, folder: Path) -> Path:
    path = folder / f"inputs-{task.artifact.folder.resolve().parent.name}-{task.batch}.npz"
    if not path.is_file():
        pixels, real = pictures(task, task.batch)
        buffer = BytesIO()
        np.savez(buffer, pixels=pixels, real=real)
        write_atomically(path, buffer.getvalue())
    return path


def model_size(path: Path) -> int:
    """Bytes of what a contestant loads: a library, or a model file with its external data."""
    if (path / LIBRARY_NAME).is_file():
        return (path / LIBRARY_NAME).stat().st_size
    if path.is_dir():
        return 0  # the original module: its weights are part of no file that we made
    if path.parent.parent.name == FOLDER:
        return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
    return path.stat().st_size


def one_line(error: Exception) -> str:
    """Shorten a reason for a table."""
    return " ".join(str(error).split()) or type(error).__name__
