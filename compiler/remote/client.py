"""This process's end of a session: nothing that a device does can hang or crash it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from vitq.compiler.remote import connection
from vitq.compiler.remote.device import Device
from vitq.compiler.remote.tracker import Offer, Tracker
from vitq.compiler.support.worker import Worker, WorkerError
from vitq.compiler.target.table import Target
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)
T = TypeVar("T")

CONNECT_S = 20.0
"""After which a device that was offered but does not answer is given up."""
WAIT_S = 5.0
BUSY_S = 600.0
"""How long to wait while all devices serve others."""


class Client:
    """Sessions on devices, one after another.

    Args:
        tracker: who knows the devices.
        target: that they must fit.
        limit_s: of a session, kept by the device, too.
    """

    def __init__(self, tracker: Tracker, target: Target, limit_s: float) -> None:
        self.tracker, self.target, self.limit_s = tracker, target, limit_s
        self._closed = False
        self._worker = Worker(environment={"TVM_NUM_THREADS": "1"})

    @contextmanager
    def session(self) -> Iterator[Device]:
        """Open a session on the next free device.

        Yields:
            What it is.

        Raises:
            VitqError: no device, or one that does not fit the target.
        """
        device = self._attach()
        try:
            yield device
        finally:
            self._detach()

    def call(self, function: Callable[..., T], *arguments: Any, timeout_s: float) -> T:
        """Call one of `compiler.remote.connection` in the session.

        Raises:
            WorkerError: it failed, its device died, or it took too long.
        """
        return self._worker.call(function, *arguments, timeout_s=timeout_s)

    def close(self) -> None:
        """End the worker, and with it the session; there will be no other."""
        self._closed = True
        self._worker.close()

    def _attach(self) -> Device:
        self._detach()  # starts the worker: a device does not wait long for who was sent to it
        end = time.monotonic() + BUSY_S
        while not self._closed and time.monotonic() < end:
            self.tracker.require_devices()
            offer = self.tracker.request(WAIT_S)
            device = self._connect(offer) if offer else None
            if device:
                device.require_fit(self.target)
                return device
        raise VitqError(
            f"no device under the key {self.tracker.key} became free in {BUSY_S:g} s: "
            "end what uses them, or start more"
        )

    def _connect(self, offer: Offer) -> Device | None:
        """Accept a device that was offered; None for one that does not answer as it should."""
        try:
            return self.call(connection.attach, offer, self.limit_s, timeout_s=CONNECT_S)
        except WorkerError as error:
            logger.warning("device at %s:%d does not serve: %s", offer.host, offer.port, error)
            return None

    def _detach(self) -> None:
        try:
            self.call(connection.detach, timeout_s=CONNECT_S)
        except WorkerError as error:
            logger.debug("detach: %s", error)
