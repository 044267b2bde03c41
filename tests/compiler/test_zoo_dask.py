"""Cells on dask's workers: two of them on this machine, one of which is killed in the middle."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compiler import zoo_jobs
from vitq.compiler.studies.spreading import Spread, spread_out
from vitq.numerics.errors import VitqError

pytest.importorskip("distributed", reason="no distributed: pip install 'vitq[cluster]'")
ROOT = Path(__file__).resolve().parents[2]
Processes = tuple[str, "list[subprocess.Popen[bytes]]"]


def started(*arguments: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


@pytest.fixture
def scheduler() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    port = address.partition(":")[2]
    process = started(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"
    )
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def workers(scheduler: str) -> "Iterator[list[subprocess.Popen[bytes]]]":
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    both = [
        started("distributed.cli.dask_worker", f"tcp://{scheduler}", *options) for _ in range(2)
    ]
    from distributed import Client

    with Client(scheduler, timeout=60) as client:
        client.wait_for_workers(2, timeout=120)
    yield both
    for process in both:
        process.kill()
        process.wait()


def test_what_a_killed_worker_had_is_done_by_the_other(
    scheduler: str, workers: "list[subprocess.Popen[bytes]]", tmp_path: Path
) -> None:
    place, victim = tmp_path / "processes", workers[0]

    def kill_when_it_works() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if place.is_file() and str(victim.pid) in place.read_text().split():
                break
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_works)
    killer.start()
    found = dict(spread_out(zoo_jobs.slow, [str(place)] * 5, Spread(dask=scheduler)))
    killer.join()
    assert sorted(found) == [0, 1, 2, 3, 4]
    seen = place.read_text().split()
    assert len(seen) > 5 and str(victim.pid) in seen  # one was begun twice
    assert set(found.values()) == {workers[1].pid}  # the victim finished none


def test_a_job_that_dies_costs_no_worker(
    scheduler: str, workers: "list[subprocess.Popen[bytes]]"
) -> None:
    found = dict(spread_out(zoo_jobs.square, [2, 13, 5], Spread(dask=scheduler)))
    assert (found[0], found[2]) == (4, 25) and "ended with code -9" in str(found[1])
    assert [worker.poll() for worker in workers] == [None, None]


def test_a_scheduler_without_workers_is_a_line(scheduler: str) -> None:
    with pytest.raises(VitqError, match="has no workers: run dask scheduler here"):
        list(spread_out(zoo_jobs.square, [2], Spread(dask=scheduler)))


def test_no_scheduler_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        with pytest.raises(VitqError, match=r"--dask 127\.0\.0\.1:1: .*run dask scheduler here"):
            list(spread_out(zoo_jobs.square, [2], Spread(dask="127.0.0.1:1")))
