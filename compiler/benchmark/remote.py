"""Contestants on a device behind a tracker: all in one session, measured in turn by its clock."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitq.compiler.benchmark.machine import FLAGS, MIB, PACKAGES
from vitq.compiler.benchmark.measuring import Entry, model_size, one_line
from vitq.compiler.benchmark.prepare import pictures
from vitq.compiler.benchmark.rounds import Key, Row, run_rounds, runs_for, summarize
from vitq.compiler.remote import connection
from vitq.compiler.remote.client import Client
from vitq.compiler.remote.device import Device
from vitq.compiler.remote.library import RUN_S, RemoteLibrary, device_session
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.support.artifacts import LIBRARY_NAME
from vitq.compiler.support.extras import installed
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.target.choice import get_target

logger = logging.getLogger(__name__)

LOADERS = ("vitq", "tvm")
"""Of the contestants that a device runs: those that TVM compiles."""
NOT_THERE = "runs on this machine only, not behind a tracker"


class DeviceContestant:
    """A library in the session; asked like `compiler.benchmark.rounds.ContestantProcess`.

    Args:
        client: in a session on the device.
        device: of the session.
        entry: the contestant.
        threads: of TVM's pool there.
        bare_bytes: memory of the session before any model was loaded.
    """

    def __init__(
        self, client: Client, device: Device, entry: Entry, threads: int, bare_bytes: int
    ) -> None:
        before = client.call(connection.peak_bytes, timeout_s=RUN_S)
        folder = entry.path if entry.path.is_dir() else entry.path.parent
        self._library = RemoteLibrary(
            client, device, folder / LIBRARY_NAME, entry.task.batch, threads
        )
        pixels, real = pictures(entry.task, entry.task.batch)
        self._library(pixels if entry.contestant.loader == "vitq" else real)
        (warm_ms,), peak = self._library.time(1)
        self.facts = {"base_rss_mb": bare_bytes / MIB, "warm_ms": warm_ms}
        self.peak_rss_mb = (bare_bytes + peak - before) / MIB
        self.samples_ms: list[float] = []
        self.idle_cpu_ms: list[float] = []
        self._runs = runs_for(warm_ms)

    def turn(self) -> None:
        """Run once without the clock, then a few times with it."""
        self._library.time(1)
        self.samples_ms += self._library.time(self._runs)[0]
        self.idle_cpu_ms.append(0.0)

    def close(self) -> None:
        """Return the session's end frees everything."""


@contextmanager
def device_for(tracker: Tracker, target: str) -> Iterator[tuple[Client, Device]]:
    """Open a session for a whole benchmark."""
    with device_session(tracker, get_target(target)) as (client, device):
        logger.info("benchmark: on device %s", device.title)
        if device.emulated:
            logger.warning("benchmark: the device is emulated: its times mean nothing")
        yield client, device


def measure_there(
    session: tuple[Client, Device], entries: list[Entry], threads: int, rounds: int
) -> tuple[list[Row], dict[Key, str]]:
    """`compiler.benchmark.measuring.measure` on a device."""
    client, device = session
    bare = client.call(connection.peak_bytes, timeout_s=RUN_S)
    ready: dict[Key, Any] = {}
    failed: dict[Key, str] = {}
    for entry in entries:
        try:
            ready[entry.key] = DeviceContestant(client, device, entry, threads, bare)
        except WorkerError as error:
            failed[entry.key] = one_line(error)
    failed |= run_rounds(ready, rounds)
    sizes = {entry.key: model_size(entry.path) / MIB for entry in entries}
    rows = [
        summarize(key, threads, found, sizes[key], device.name, device.emulated)
        for key, found in ready.items()
    ]
    return rows, failed


def describe_there(device: Device) -> dict[str, Any]:
    """As `compiler.benchmark.machine.describe_machine`, of a device."""
    return {
        "device": device.name,
        "emulated": device.emulated,
        "processor": device.title,
        "flags": [flag for flag in FLAGS if flag in device.features],
        "cores_present": device.cores,
        "cores_used": [],
        "load_before": None,
        "governor": "not readable",
        "hypervisor": False,
        "cache_bytes": {},
        "system": f"device {device.name}, {device.architecture}; compiled elsewhere",
        "python": "none",
        "versions": {name: installed(name) or "not installed" for name in PACKAGES[:3]},
    }
