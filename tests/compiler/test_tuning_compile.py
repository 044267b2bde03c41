"""Compiling with a log: applied, reported, exact, reproducible."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from tests.compiler.test_tuning_space import TARGET, write_log
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.inspect import inspect
from vitq.compiler.stages.tune import TuneOptions, tune
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact, file_hash
from vitq.compiler.target import host
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning.log import META
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.workload import extract
from vitq.numerics.errors import VitqError


@pytest.fixture(scope="module")
def log(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each task of the embedded model a point that is not the default."""
    model = import_model(artifact.onnx, Meaning())
    numbers = random.Random(5)
    points = []
    for task in extract(model.integer.mod, TARGET.features, TARGET.tvm_config()):
        values = {
            name: numbers.choice([c for c in knob.choices if c != knob.default] or [knob.default])
            for name, knob in task.knobs.items()
        }
        points.append((task, values))
    return write_log(tmp_path_factory.mktemp("logs") / "log", points)


def schedules_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "metadata.json").read_text())["schedules"]
    return found


def test_a_log_is_applied_reported_and_exact(
    artifact: Artifact, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vitq.compiler"):
        tuned = compile_model(artifact.folder, CompileOptions(tuning_log=log))
        untuned = compile_model(artifact.folder, CompileOptions(tuned=False))
    assert (tuned.name, untuned.name) == ("cpu", "cpu-untuned")
    assert f"from {log}" in caplog.text and "untuned" in caplog.text
    by_log = [kernel for kernel in schedules_of(tuned) if kernel["source"] == "log"]
    by_default = [k for k in schedules_of(untuned) if k["source"] == "default: untuned"]
    for one, other in zip(by_log, by_default, strict=True):
        assert one["name"] == other["name"] and one["values"] != other["values"]
    assert file_hash(tuned / "model.so") != file_hash(untuned / "model.so")
    for folder in (tuned, untuned):
        for threads in (1, 2):
            assert all(check.different == 0 for check in verify(folder, count=8, threads=threads))
    sources = inspect(tuned)["targets"]["cpu"]["schedule_sources"]
    assert sources["log"] == len(by_log)


def test_the_same_log_gives_the_same_library(artifact: Artifact, log: Path) -> None:
    folder = compile_model(artifact.folder, CompileOptions(tuning_log=log))
    first = file_hash(folder / "model.so")
    with (log / RECORDS).open("a") as file:
        file.write((log / RECORDS).read_text().splitlines()[0] + "\n")
    (folder / "model.so").unlink()
    compile_model(artifact.folder, CompileOptions(tuning_log=log))
    assert file_hash(folder / "model.so") == first


def test_a_log_of_something_else_is_refused(
    artifact: Artifact, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = json.loads((log / META).read_text())
    for key, value in (("tvm_version", "0.1"), ("target", "toaster")):
        (log / META).write_text(json.dumps({**meta, key: value}))
        with pytest.raises(VitqError, match=f"{value}.* compile with --untuned"):
            compile_model(artifact.folder, CompileOptions(tuning_log=log))
    (log / META).write_text(json.dumps(meta))
    with pytest.raises(VitqError, match="not both"):
        CompileOptions(tuned=False, tuning_log=log)


def test_tuning_refuses_what_it_cannot_do(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VitqError, match="--trials 0"):
        TuneOptions(trials=0)
    with pytest.raises(VitqError, match="no artifact"):
        tune(tmp_path, TuneOptions())
    monkeypatch.setattr(host, "host_flags", set)
    monkeypatch.setattr("vitq.compiler.stages.tune.host_flags", set)
    with pytest.raises(VitqError, match="cannot be tuned here: this processor lacks avx"):
        tune(artifact.folder, TuneOptions(target=get_target("x86-avx2")))
