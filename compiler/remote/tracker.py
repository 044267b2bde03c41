"""TVM's tracker: devices register under a key, clients ask it for a free one.

It is started by ``python -m tvm.exec.rpc_tracker``; nothing here listens.
"""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from vitq.numerics.errors import VitqError

MAGIC = 0x2F271
REQUEST, SUMMARY = 4, 6
ANSWER_S = 10.0
LONGEST_ANSWER = 1 << 24
START = "python -m tvm.exec.rpc_tracker --host 127.0.0.1"


@dataclass(frozen=True)
class Offer:
    """A device that was given to this client.

    Attributes:
        host: where it listens.
        port: likewise.
        word: that it wants to hear.
    """

    host: str
    port: int
    word: str


@dataclass(frozen=True)
class Tracker:
    """Where devices are asked for.

    Attributes:
        host: of the tracker.
        port: of the tracker.
        key: that the devices registered under.
    """

    host: str
    port: int
    key: str

    def devices(self) -> int:
        """How many devices are registered, busy ones included.

        Raises:
            VitqError: no tracker there.
        """
        return self.registered().get(self.key, 0)

    def require_devices(self) -> None:
        """Refuse a tracker without a device.

        Raises:
            VitqError: naming the keys that there are.
        """
        registered = self.registered()
        if not registered.get(self.key):
            others = ", ".join(sorted(registered)) or "none at all"
            raise VitqError(
                f"no device is registered under the key {self.key} at {self.host}:{self.port} "
                f"(keys: {others}): start vitq-serve on one"
            )

    def registered(self) -> dict[str, int]:
        """Count the devices under each key."""
        try:
            servers = self._ask([SUMMARY], ANSWER_S)[1]["server_info"]
        except _NoAnswerError as error:
            raise VitqError(f"the tracker at {self.host}:{self.port} does not answer") from error
        counts: dict[str, int] = {}
        for server in servers:
            key = str(server["key"]).removeprefix("server:")
            counts[key] = counts.get(key, 0) + 1
        return counts

    def request(self, wait_s: float) -> Offer | None:
        """Ask for a device.

        Args:
            wait_s: how long, while all are busy.

        Returns:
            One that is now this client's; None if none became free.

        Raises:
            VitqError: no tracker there.
        """
        try:
            host, port, word = self._ask([REQUEST, self.key, "", 1], wait_s)[1]
        except _NoAnswerError:
            return None
        return Offer(str(host), int(port), str(word))

    def _ask(self, message: list[Any], wait_s: float) -> Any:
        """One message and its answer.

        Raises:
            VitqError: no tracker there.
            _NoAnswerError: the answer takes longer.
        """
        data = json.dumps(message).encode()
        try:
            with socket.create_connection((self.host, self.port), ANSWER_S) as connection:
                connection.sendall(struct.pack("<i", MAGIC))
                if _integer(connection) != MAGIC:
                    raise ValueError("another program listens there")
                connection.sendall(struct.pack("<i", len(data)) + data)
                connection.settimeout(wait_s)
                try:
                    size = _integer(connection)
                except TimeoutError as error:
                    raise _NoAnswerError from error
                if not 0 < size <= LONGEST_ANSWER:
                    raise ValueError("another program listens there")
                return json.loads(_receive(connection, size))
        except (OSError, ValueError) as error:
            raise VitqError(
                f"no tracker answers at {self.host}:{self.port} ({error}): start one with {START}"
            ) from error


class _NoAnswerError(Exception):
    """The tracker has nothing to say yet."""


def parse_tracker(address: str, key: str) -> Tracker:
    """Parse a tracker as the command line names it.

    Args:
        address: ``host:port``.
        key: of the devices.

    Raises:
        VitqError: written in another way.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise VitqError(f"--tracker {address!r}: write host:port")
    return Tracker(host.strip("[]"), int(port), key)


def _integer(connection: socket.socket) -> int:
    number: int = struct.unpack("<i", _receive(connection, 4))[0]
    return number


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 16))
        if not part:
            raise OSError("it closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
