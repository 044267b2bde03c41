"""Two processes on one artifact: one waits; and what a killed one left goes away."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitq.compiler.support import locks
from vitq.compiler.support.locks import alone, writing_to
from vitq.numerics.files import replaced_folder

HOLD = """
import sys, time
from pathlib import Path
from vitq.compiler.support.locks import writing_to
with writing_to(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that has the folder's lock when this returns."""
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "has it\n"
    return process


def test_the_second_process_waits_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, started = hold(tmp_path, 1.0), time.monotonic()
    with caplog.at_level(logging.INFO), writing_to(tmp_path):
        assert time.monotonic() - started > 0.8
    assert other.wait() == 0
    assert "another vitq writes there; waiting" in caplog.text


def test_other_folders_are_not_waited_for(tmp_path: Path) -> None:
    other, started = hold(tmp_path / "a", 30), time.monotonic()
    with writing_to(tmp_path / "b"):
        assert time.monotonic() - started < 10
    other.kill()
    other.wait()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    other = hold(tmp_path, 300)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with writing_to(tmp_path):
        pass


def test_a_process_takes_it_twice(tmp_path: Path) -> None:
    with writing_to(tmp_path), writing_to(tmp_path / "." / "x" / ".."):
        assert multiprocessing.current_process().is_alive()


def test_what_was_half_written_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "w8a8"
    (folder / ".build.abc123_x").mkdir(parents=True)
    (folder / ".build.abc123_x" / "model.so").touch()
    (folder / f".model.onnx.{'0f' * 16}").touch()
    (tmp_path / ".w8a8.k3_x9zq0" / "new").mkdir(parents=True)
    kept = [folder / ".hidden", folder / "model.so", tmp_path / ".w8a9.k3_x9zq0"]
    for path in kept:
        path.touch()
    with writing_to(folder):
        assert sorted(folder.iterdir()) == kept[:2]
        assert sorted(tmp_path.iterdir()) == sorted([kept[2], folder])


def test_a_folder_that_is_being_filled_is_recognised(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "bundle") as build:
        (name,) = [path.name for path in tmp_path.iterdir()]
        assert build.parent.name == name
        with writing_to(tmp_path / "bundle"):
            assert not build.exists()
        build.mkdir(parents=True)


def test_without_a_place_for_locks_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(locks, "cache_folder", lambda: tmp_path / "file")
    with writing_to(tmp_path / "x"):
        assert "is not locked" in caplog.text and "run no other vitq" in caplog.text


def test_a_decorated_function_keeps_its_name_and_result(tmp_path: Path) -> None:
    @alone(lambda folder, *, n=1: folder)
    def double(folder: Path, *, n: int = 1) -> int:
        """Twice."""
        return 2 * n

    assert (double(tmp_path, n=3), double.__name__, double.__doc__) == (6, "double", "Twice.")
