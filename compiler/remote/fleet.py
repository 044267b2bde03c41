"""Kernels timed on several devices at once."""

import logging
import math
import queue
from collections.abc import Sequence
from pathlib import Path

from vitq.compiler.remote import connection
from vitq.compiler.remote.client import Client
from vitq.compiler.remote.device import Device
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.bench import Attempt
from vitq.compiler.tuning.measure import Inputs
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

MOST_PLACES = 16
ATTEMPTS = 2
"""Of a measurement whose device was lost: it may be the device's fault or the kernel's."""


def probe(tracker: Tracker, target: Target) -> Device:
    """One of the devices.

    Raises:
        VitqError: there is none, or it does not fit the target.
    """
    client = Client(tracker, target, limit_s=connection.PROBE_S)
    try:
        with client.session() as device:
            return device
    finally:
        client.close()


class Fleet:
    """`compiler.tuning.bench.Bench` of devices behind a tracker.

    Args:
        tracker: who knows them.
        target: that they must fit.
        like: one of them; the others must be emulated if it is.
        threads: of the kernels.
        run_s: after which a measurement is given up.
        measure_s: how long a candidate is timed.
    """

    def __init__(
        self,
        tracker: Tracker,
        target: Target,
        like: Device,
        threads: int,
        run_s: float,
        measure_s: float,
    ) -> None:
        self.tracker, self.target, self.like, self.threads = tracker, target, like, threads
        self.run_s, self.measure_s = run_s, measure_s
        self._clients: list[Client] = []
        self._free: queue.SimpleQueue[Client] = queue.SimpleQueue()

    @property
    def places(self) -> int:
        """How many devices are registered now: they may come and go."""
        places = min(max(self.tracker.devices(), 1), MOST_PLACES)
        while len(self._clients) < places:
            client = Client(self.tracker, self.target, 2 * self.run_s)
            self._clients.append(client)
            self._free.put(client)
        return places

    def time(self, inputs: Inputs, libraries: Sequence[str], rounds: int) -> list[Attempt]:
        """See `compiler.tuning.bench.Bench`; called by as many threads as there are places."""
        client = self._free.get()
        attempts: list[Attempt] = []
        try:
            while len(attempts) < ATTEMPTS and (not attempts or attempts[-1].error):
                attempts.append(self._try(client, inputs, libraries, rounds))
            return attempts
        finally:
            self._free.put(client)

    def _try(
        self, client: Client, inputs: Inputs, libraries: Sequence[str], rounds: int
    ) -> Attempt:
        """One session."""
        client.limit_s = 2 * self.run_s * rounds * len(libraries)
        with client.session() as device:
            self._require_alike(device)
            try:
                times = client.call(
                    connection.time_in_turn,
                    list(libraries),
                    inputs,
                    self.measure_s,
                    rounds,
                    self.threads,
                    timeout_s=self.run_s * rounds * len(libraries),
                )
                if not all(_is_time(second) for found in times for second in found):
                    raise WorkerError(f"it returned a time that is none: {times}")
            except WorkerError as error:
                names = ", ".join(Path(path).name for path in libraries)
                logger.warning("tune: device %s is lost with %s: %s", device.name, names, error)
                return Attempt([[] for _ in libraries], device.name, error)
        return Attempt(times, device.name)

    def _require_alike(self, device: Device) -> None:
        if device.emulated != self.like.emulated:
            raise VitqError(
                f"of the devices {self.like.title} and {device.title} one is emulated: their times "
                "cannot come into one log, register them under two keys"
            )

    def close(self) -> None:
        """End all sessions."""
        for client in self._clients:
            client.close()


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0
