"""A tracker and devices on the loopback interface, real ones and ones that misbehave."""

import importlib.util
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitq.compiler.remote.tracker import MAGIC, Tracker
from vitq.numerics.errors import VitqError

WAIT_S = 60.0
SERVER_MAGIC = 0xFF271


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll until it holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {WAIT_S:g} s"
        time.sleep(0.02)


def free_port() -> int:
    """One that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tracker_process() -> Iterator[int]:
    """TVM's tracker; yields its port."""
    if importlib.util.find_spec("tornado") is None:
        pytest.skip("tornado is not installed: TVM's tracker needs it, pip install vitq[remote]")
    port = free_port()
    range_ = ["--port", str(port), "--port-end", str(port + 1)]
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", *range_]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def answers() -> bool:
        try:
            Tracker("127.0.0.1", port, "").registered()
        except VitqError:
            return False
        return True

    try:
        wait_for(answers, "the tracker")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it has a process of its own for the work
        process.wait()


class Served:
    """``vitq-serve`` of a bundle, registered.

    Args:
        bundle: its folder.
        tracker: port of the tracker.
        key: to register under.
        name: of the device.
        before: an emulator and its options.
    """

    def __init__(
        self, bundle: Path, tracker: int, key: str, name: str, before: tuple[str, ...] = ()
    ) -> None:
        self.tracker = Tracker("127.0.0.1", tracker, key)
        known = self.tracker.devices()
        address = ["--tracker", f"127.0.0.1:{tracker}", "--key", key, "--name", name]
        command = [*before, str(bundle / "vitq-serve"), *address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"listening on 127\.0\.0\.1:(\d+) ", line)
        assert found, line
        self.port = int(found[1])
        wait_for(lambda: self.tracker.devices() > known, f"device {name}")

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """As a person would."""
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def served(*args: object, **options: object) -> Iterator[Served]:
    """See `Served`."""
    device = Served(*args, **options)  # type: ignore[arg-type]
    try:
        yield device
    finally:
        device.close()


class FakeDevice:
    """Registers once, and treats its client badly.

    Args:
        tracker: port of the tracker.
        key: to register under.
        manner: ``closes``, ``hangs`` or ``garbage``.
    """

    def __init__(self, tracker: int, key: str, manner: str) -> None:
        self.manner = manner
        self.victims = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self._tracker = socket.create_connection(("127.0.0.1", tracker))
        self._tracker.sendall(struct.pack("<i", MAGIC))
        self._tracker.recv(4)
        self._say([5, {"key": f"server:{key}", "addr": [None, port]}])
        self._say([3, key, [port, f"{key}:0.5"], None])
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _say(self, message: list[object]) -> None:
        data = json.dumps(message).encode()
        self._tracker.sendall(struct.pack("<i", len(data)) + data)
        self._tracker.recv(64)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.victims += 1
            self._clients.append(client)
            if self.manner == "closes":
                client.close()
            if self.manner == "garbage":
                name = b"server:x"
                client.sendall(struct.pack("<ii", SERVER_MAGIC, len(name)) + name)
                client.sendall(os.urandom(4096))

    def close(self) -> None:
        """Leave the tracker."""
        for connection in (self._tracker, self._listening, *self._clients):
            connection.close()
