"""Devices that die, hang or return garbage, on this machine's own processor."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.bundles import is_one_line
from tests.compiler.fleets import FakeDevice, Served, free_port, served, tracker_process
from tests.compiler.tuning_templates import kernel_of
from vitq.compiler.deploy.bundle import Bundle
from vitq.compiler.remote import client as clients
from vitq.compiler.remote.client import Client
from vitq.compiler.remote.device import Device, parse_device
from vitq.compiler.remote.fleet import Fleet, probe
from vitq.compiler.remote.tracker import Tracker, parse_tracker
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.table import TARGETS
from vitq.compiler.tuning.bench import Attempt
from vitq.compiler.tuning.measure import Inputs, compile_kernel, save_constants
from vitq.numerics.errors import VitqError

TARGET = get_target("cpu")
KEY = "mine"
SOON_S = 20.0
"""For a few starts of Python; forty silent clients in turn took 200 s."""
CRASHES, HANGS, FAILS = "__builtin_trap();", "for (;;);", "return -1;"


@pytest.fixture(scope="module")
def tracker_port() -> Iterator[int]:
    with tracker_process() as port:
        yield port


@pytest.fixture(scope="module")
def device(bundles: dict[str, Bundle], tracker_port: int) -> Iterator[Served]:
    """A device that behaves."""
    with served(bundles["vm"].folder, tracker_port, KEY, "good") as device:
        yield device


@pytest.fixture(scope="module")
def started(device: Served) -> Iterator[Fleet]:
    like = probe(device.tracker, TARGET)
    assert like.name == "good" and not like.emulated
    fleet = Fleet(device.tracker, TARGET, like, 1, 20.0, 0.002)
    yield fleet
    fleet.close()


@pytest.fixture
def fleet(started: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """What a test may change attributes of."""
    for name in ("like", "run_s"):
        monkeypatch.setattr(started, name, getattr(started, name))
    return started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    path = tmp_path_factory.mktemp("inputs") / "task.npz"
    kernel = kernel_of()
    save_constants(path, (None, np.arange(kernel.out.size, dtype=np.int32)))
    return Inputs(kernel, path)


@pytest.fixture(scope="module")
def kernel(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kernel that works."""
    path = str(tmp_path_factory.mktemp("kernel") / "add.so")
    return compile_kernel(inputs.kernel, {}, TARGET.tvm_config(), "g++", path)


def bad_kernel(folder: Path, body: str) -> str:
    """A library whose kernel does something else."""
    source, path = folder / "bad.c", folder / "bad.so"
    function = "__tvm_ffi_test_add(void* self, const void* args, int count, void* result)"
    source.write_text(f"int {function} {{ {body} return 0; }}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
    return str(path)


def times_of(fleet: Fleet, inputs: Inputs, *paths: str, rounds: int = 1) -> list[Attempt]:
    assert fleet.places >= 1
    return fleet.time(inputs, paths, rounds)


def test_kernels_are_timed_in_turn(fleet: Fleet, inputs: Inputs, kernel: str) -> None:
    (attempt,) = times_of(fleet, inputs, kernel, kernel, rounds=3)
    assert attempt.device == "good" and attempt.error is None
    assert [len(found) for found in attempt.seconds] == [3, 3]
    assert all(1e-8 < second < 1e-2 for found in attempt.seconds for second in found)


@pytest.mark.parametrize(
    ("body", "said"), [(CRASHES, "InternalError"), (HANGS, "took more than 2 s")]
)
def test_a_kernel_that_takes_its_session_down(
    fleet: Fleet, inputs: Inputs, kernel: str, tmp_path: Path, body: str, said: str
) -> None:
    if body == HANGS:
        fleet.run_s = 2.0
    attempts = times_of(fleet, inputs, bad_kernel(tmp_path, body))
    assert [attempt.device for attempt in attempts] == ["good", "good"], "tried once more"
    assert all(said in str(attempt.error) for attempt in attempts)
    fleet.run_s = 20.0
    assert times_of(fleet, inputs, kernel)[0].error is None, "the device serves on"


def test_a_kernel_that_fails(fleet: Fleet, inputs: Inputs, kernel: str, tmp_path: Path) -> None:
    (attempt,) = times_of(fleet, inputs, bad_kernel(tmp_path, FAILS), kernel)
    assert attempt.error is None
    assert [len(found) for found in attempt.seconds] == [0, 1]


@pytest.mark.parametrize("manner", ["closes", "hangs", "garbage"])
def test_a_device_that_is_none(
    fleet: Fleet,
    inputs: Inputs,
    kernel: str,
    tracker_port: int,
    manner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if manner == "hangs":
        monkeypatch.setattr(clients, "CONNECT_S", 4.0)
    fake = FakeDevice(tracker_port, KEY, manner)
    try:
        for _ in range(2):  # the tracker gives out the one that waits longest
            attempts = times_of(fleet, inputs, kernel)
            assert attempts[-1].device == "good" and attempts[-1].error is None
        assert fake.victims == 1
    finally:
        fake.close()


def test_times_that_are_none(
    fleet: Fleet, inputs: Inputs, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[[float("nan")]], [[2e-6]]]
    monkeypatch.setattr(Client, "call", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(Client, "_attach", lambda _: fleet.like)
    monkeypatch.setattr(Client, "_detach", lambda _: None)
    first, second = times_of(fleet, inputs, kernel)
    assert isinstance(first.error, WorkerError) and "none" in str(first.error)
    assert second.seconds == [[2e-6]]


def test_two_places_work_at_once(
    fleet: Fleet, inputs: Inputs, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)

    def call(*_: object, **__: object) -> list[list[float]]:
        both.wait()
        return [[1e-6]]

    monkeypatch.setattr(Client, "call", call)
    monkeypatch.setattr(Client, "_attach", lambda _: fleet.like)
    monkeypatch.setattr(Client, "_detach", lambda _: None)
    monkeypatch.setattr(Tracker, "devices", lambda _: 2)
    assert fleet.places == 2
    found: list[Attempt] = []
    threads = [
        threading.Thread(target=lambda: found.extend(fleet.time(inputs, [kernel], 1)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [attempt.seconds for attempt in found] == [[[1e-6]], [[1e-6]]]


def test_no_tracker_and_no_device(tracker_port: int, device: Served) -> None:
    with pytest.raises(VitqError, match=r"no tracker answers at .* start one with python -m tvm"):
        Tracker("127.0.0.1", free_port(), KEY).devices()
    with pytest.raises(VitqError, match="no tracker answers"):
        Tracker("127.0.0.1", device.port, KEY).devices()
    with pytest.raises(VitqError, match=rf"no device .* key other .*keys: {KEY}"):
        Tracker("127.0.0.1", tracker_port, "other").require_devices()
    assert Tracker("127.0.0.1", tracker_port, "other").request(0.2) is None


@pytest.mark.parametrize("address", ["", "host", ":9190", "host:", "host:x", "host:0", "h:70000"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(VitqError, match="write host:port"):
        parse_tracker(address, KEY)


def test_a_device_that_does_not_fit(fleet: Fleet, inputs: Inputs, kernel: str) -> None:
    with pytest.raises(VitqError, match=r"device good .* lacks aarch64"):
        probe(fleet.tracker, TARGETS["rpi5"])
    slower = Device("x", "aarch64", frozenset({"aarch64", "asimd"}), "Cortex-A72", 4, True)
    with pytest.raises(VitqError, match=r"device x \(emulated on Cortex-A72\) lacks asimddp"):
        slower.require_fit(TARGETS["rpi5"])
    slower.require_fit(TARGETS["rpi4"])
    fleet.like = slower
    with pytest.raises(VitqError, match="one is emulated"):
        times_of(fleet, inputs, kernel)


def test_a_description_that_is_none() -> None:
    for text in ("", "[]", "{}", '{"name": "a"}'):
        with pytest.raises(ValueError, match="not a device's description"):
            parse_device(text)


def test_silent_clients_delay_nobody(
    device: Served, fleet: Fleet, inputs: Inputs, kernel: str
) -> None:
    silent = [socket.create_connection(("127.0.0.1", device.port)) for _ in range(40)]
    try:
        for client, said in zip(silent, (b"", b"\x71", b"\x71\xf2\x0f\0\xff\0\0\0c"), strict=False):
            client.sendall(said)
        start = time.monotonic()
        (attempt,) = times_of(fleet, inputs, kernel)
        assert attempt.error is None and time.monotonic() - start < SOON_S
    finally:
        for client in silent:
            client.close()


def test_it_listens_on_loopback_only(device: Served) -> None:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [
        row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{device.port:04X}")
    ]
    assert listening == [f"0100007F:{device.port:04X}"]


def test_a_damaged_runtime_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["vm"].folder, tmp_path / "copy"))
    (copy / "lib" / "libtvm_runtime.so").write_bytes(b"other")
    command = [str(copy / "vitq-serve"), "--tracker", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "libtvm_runtime.so is not the file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --tracker"),
        (("--tracker",), "needs a value"),
        (("--tracker", "nowhere"), "write host:port"),
        (("--tracker", "127.0.0.1:1", "--key", "a b"), "letters"),
        (("--tracker", "127.0.0.1:1", "--fast", "1"), "unknown option"),
        (("--tracker", "127.0.0.1:1", "--listen", "203.0.113.1"), "203.0.113.1"),
        (("--tracker", "127.0.0.1:1", "--bundle", "nowhere"), "missing"),
    ],
)
def test_a_wrong_call_is_one_line(
    bundles: dict[str, Bundle], arguments: tuple[str, ...], said: str
) -> None:
    program = str(bundles["vm"].folder / "vitq-serve")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr
    assert is_one_line(done.stderr.replace("vitq-serve", "vitq-run"))
