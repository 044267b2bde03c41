"""A compiled model on a device, called like `compiler.codegen.library.Library`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitq.compiler.codegen.batching import run_in_batches
from vitq.compiler.remote import connection
from vitq.compiler.remote.client import Client
from vitq.compiler.remote.device import Device
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.target.table import Target
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError

SESSION_S = 3600.0
LOAD_S = 120.0
RUN_S = 120.0
"""For one batch, emulated devices included."""


class RemoteLibrary:
    """Made by `open_remote`.

    Args:
        client: in a session.
        device: of the session.
        path: of the library, here.
        batch: that it was compiled for.
        threads: of TVM's pool there.
    """

    def __init__(
        self, client: Client, device: Device, path: Path, batch: int, threads: int
    ) -> None:
        self.device, self.batch = device, batch
        self._client, self._name = client, f"{path.parent.name}-{path.name}"
        client.call(connection.load_model, str(path), self._name, threads, timeout_s=LOAD_S)

    def __call__(self, pixels: UInt8Array) -> IntArray:
        """Integer logits of any number of pictures.

        Args:
            pixels: (N, C, H, W) uint8.

        Returns:
            (N, classes) codes.

        Raises:
            WorkerError: the device failed.
        """
        return run_in_batches(self._one_batch, pixels, self.batch)

    def _one_batch(self, pixels: UInt8Array) -> IntArray:
        return self._client.call(connection.infer, self._name, pixels, timeout_s=RUN_S)

    def time(self, runs: int) -> tuple[list[float], int]:
        """Milliseconds of runs on the last batch, and the peak memory of the session's process."""
        return self._client.call(connection.time_model, self._name, runs, timeout_s=RUN_S + runs)


@contextmanager
def device_session(tracker: Tracker, target: Target) -> Iterator[tuple[Client, Device]]:
    """Open a session that ends with a user's error where its device is lost.

    Raises:
        VitqError: no device, or it failed.
    """
    client = Client(tracker, target, SESSION_S)
    try:
        with client.session() as device:
            try:
                yield client, device
            except WorkerError as error:
                raise VitqError(f"device {device.title} failed: {error}") from error
    finally:
        client.close()


@contextmanager
def open_remote(
    path: Path, batch: int, target: Target, tracker: Tracker, threads: int
) -> Iterator[RemoteLibrary]:
    """Open a library on the next free device (see `RemoteLibrary`, `device_session`)."""
    with device_session(tracker, target) as (client, device):
        yield RemoteLibrary(client, device, path, batch, threads)
