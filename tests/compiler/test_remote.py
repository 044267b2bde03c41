"""Emulated devices behind TVM's tracker: tuning, verifying and measuring end to end."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compiler.fleets import Served, served, tracker_process
from tests.compiler.test_deploy_device import emulator, need_emulation
from tests.compiler.tuning_templates import kernel_of, task_of
from vitq.compiler.benchmark.benchmark import BenchmarkOptions
from vitq.compiler.cli import main as cli
from vitq.compiler.cli import options as cli_options
from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.stages import verify as verifying
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.tune import TuneOptions, tune_tasks
from vitq.compiler.support.artifacts import Artifact, read_json
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning.log import META, read_log
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.schedules import best, is_valid
from vitq.numerics.errors import VitqError

TARGET = get_target("rpi5")
TRIALS = 24


@pytest.fixture(scope="module")
def compiled_rpi5(artifact: Artifact) -> Path:
    need_emulation("rpi5", "vm")
    return compile_model(artifact.folder, CompileOptions(target=get_target("rpi5")))


@pytest.fixture(scope="module")
def bundle(compiled_rpi5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = deploy(compiled_rpi5, DeployOptions(out=tmp_path_factory.mktemp("rpi5") / "bundle"))
    return made.folder


@pytest.fixture(scope="module")
def tracker_port() -> Iterator[int]:
    with tracker_process() as port:
        yield port


@pytest.fixture(scope="module")
def device(bundle: Path, tracker_port: int) -> Iterator[Served]:
    with served(bundle, tracker_port, "rpi5", "pi-a", emulator("cortex-a76")) as device:
        yield device


def records(folder: Path) -> list[Any]:
    path = folder / RECORDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def device_of(record: Any) -> str:
    """A record says it in its target."""
    return str(record[1][2].get("model", ""))


def test_two_devices_of_which_one_is_killed(
    bundle: Path, tracker_port: int, tmp_path: Path
) -> None:
    """The run completes, on the other one."""
    before = emulator("cortex-a76")
    log = tmp_path / "log"
    tasks = [task_of(kernel_of(), 3), task_of(kernel_of(size=256))]
    options = TuneOptions(
        target=get_target("rpi5"),
        trials=TRIALS,
        log=log,
        tracker=Tracker("127.0.0.1", tracker_port, "tuning"),
    )
    with (
        served(bundle, tracker_port, "tuning", "first", before) as first,
        served(bundle, tracker_port, "tuning", "second", before),
    ):
        dead_at: list[int] = []

        def kill() -> None:
            while Counter(map(device_of, records(log)))["first"] < 2:
                time.sleep(0.05)
            first.kill()
            dead_at.append(len(records(log)))

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        tune_tasks(tasks, TARGET, options)
        killer.join(1)
    assert dead_at and dead_at[0] < TRIALS, "it was over before the device was killed"
    found = Counter(map(device_of, records(log)))
    assert set(found) == {"first", "second"}
    lost = [r for r in records(log) if r[1][1][0] > 1e8]
    assert len(lost) <= 2 and all(device_of(record) == "first" for record in lost)
    entries = read_log(log)
    assert sum(map(len, entries.values())) == TRIALS
    for task in tasks:
        assert all(entry.works for entry in entries[task.text]), "what was lost was tried again"
        assert all(is_valid(task.kernel, entry.values) for entry in entries[task.text])
        chosen = best(entries[task.text])
        assert chosen.confirmed and chosen.device in found
    meta = read_json(log / META)
    assert meta["times"].startswith("emulated") and meta["target"] == "rpi5"


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["vitq", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code


def test_verify(
    compiled_rpi5: Path,
    device: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = ["--tracker", f"127.0.0.1:{device.tracker.port}"]  # the key is the target's name
    run_command(monkeypatch, "verify", str(compiled_rpi5), *address, "--count", "5", "--json")
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {check["name"] for check in checks} >= {"golden", "real", "random", "all 255"}
    assert sum(check["values"] for check in checks) >= 200
    for check in checks:
        assert check["different"] == 0 and check["device"].startswith("pi-a (emulated on ")


def test_benchmark(
    compiled_rpi5: Path,
    device: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["benchmark", str(compiled_rpi5), "--key", "rpi5", "--rounds", "1"]
    command += ["--contestants", "vitq-int8-tuned,torch-fp32"]
    command += ["--tracker", f"127.0.0.1:{device.tracker.port}"]
    run_command(monkeypatch, *command, "--json")
    content = json.loads(capsys.readouterr().out)
    (row,) = content["rows"]
    assert (row["name"], row["device"], row["emulated"]) == ("vitq-int8-tuned", "pi-a", True)
    assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] and row["runs"] >= 1
    assert 0 < row["model_rss_mb"] < row["peak_rss_mb"] < 200
    assert content["machine"]["device"] == "pi-a" and content["machine"]["emulated"]
    (skipped,) = content["skipped"]
    assert skipped["name"] == "torch-fp32" and "this machine only" in skipped["reason"]
    run_command(monkeypatch, *command)
    said = " ".join(capsys.readouterr().out.split())
    assert "device pi-a - EMULATED: these times mean nothing" in said


def test_emulated_times_never_come_into_the_shipped_logs(device: Served) -> None:
    options = TuneOptions(target=get_target("rpi5"), tracker=device.tracker)
    with pytest.raises(VitqError, match=r"device pi-a .*mean nothing for rpi5.* --log"):
        tune_tasks([task_of(kernel_of())], TARGET, options)


def test_a_device_lost_while_it_verifies_is_one_line(
    compiled_rpi5: Path, bundle: Path, tracker_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(bundle, tracker_port, "short", "pi-b", emulator("cortex-a76")) as device:
        inputs = verifying._inputs

        def kill_then(*args: Any) -> Any:
            device.kill()
            return inputs(*args)

        monkeypatch.setattr(verifying, "_inputs", kill_then)
        with pytest.raises(VitqError, match=r"device pi-b \(emulated on .*failed"):
            verifying.verify(compiled_rpi5, count=2, tracker=device.tracker)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(VitqError, match="--key pi belongs to --tracker"):
        cli_options.tracker(None, "pi", lambda: "rpi5")
    with pytest.raises(VitqError, match="leave out --tracker"):
        BenchmarkOptions(profile=True, tracker=Tracker("127.0.0.1", 1, "x"))


def test_the_wrong_processor_is_refused(bundle: Path) -> None:
    command = [*emulator("cortex-a72"), str(bundle / "vitq-serve"), "--tracker", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3 and "lacks asimddp" in done.stderr
