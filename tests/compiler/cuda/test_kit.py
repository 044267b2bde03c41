"""Compile here, measure there: what a kit holds, and the way back into a log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.cuda.compilers import needs_compiler
from vitq.compiler.benchmark.kit import KitOptions
from vitq.compiler.benchmark.kit import kit as build_kit
from vitq.compiler.cli.benchmark_report import BenchmarkRequest, run_benchmark
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.gpu_kit.kernels import read_tasks
from vitq.compiler.kernels.cpu.lowering import TensorType
from vitq.compiler.kernels.cuda.tile import Tile
from vitq.compiler.nvidia import driver
from vitq.compiler.nvidia.fatbin import contents
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.tune import TuneOptions, tune
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target
from vitq.compiler.tuning import candidates, places
from vitq.compiler.tuning import log as logs
from vitq.compiler.tuning.candidates import candidates_of, compile_points
from vitq.compiler.tuning.schedules import LOG, open_schedules
from vitq.compiler.tuning.workload import Task, extract
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import names

no_gpu = pytest.mark.skipif(driver.why_no_gpu() is None, reason="there is an NVIDIA GPU here")
GPU = get_target("cuda")


@needs_compiler
def test_a_gpu_bundle_has_what_a_gpu_needs(artifact: Artifact, tmp_path: Path) -> None:
    from vitq.compiler.stages.compile import CompileOptions, compile_model

    folder = compile_model(artifact.folder, CompileOptions(target=get_target("cuda")))
    bundle = deploy(folder, DeployOptions(out=tmp_path / "bundle"))
    assert bundle.manifest["gpu"] == ["sm_90"]
    files = {file["path"] for file in bundle.manifest["files"]}
    assert {"lib/libtvm_runtime_cuda.so", "python/gpu_kit/model.py", "vitq-run"} <= files
    if driver.why_no_gpu() is None:
        assert bundle.measured.verified == "here"
        return
    assert bundle.measured.verified == "no"
    command = [bundle.folder / "vitq-run", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "NVIDIA's driver" in done.stderr or "libcuda" in done.stderr
    with pytest.raises(VitqError, match="needs --flavour vm"):
        deploy(folder, DeployOptions(out=tmp_path / "other", flavour="static"))


@needs_compiler
def test_a_kit_holds_models_and_says_what_to_compare(artifact: Artifact, tmp_path: Path) -> None:
    kit = build_kit([artifact.folder], KitOptions(out=tmp_path / "kit"))
    about = json.loads((kit / "kit.json").read_text())
    (name,) = about["models"]
    assert about["benchmarks"][0]["libraries"] == {"vitq-int8": name}
    assert about["benchmarks"][0]["timm"] is None
    assert [65, 192, 64] in about["products"], "rows, columns, inner of the qkv layers"
    assert contents((kit / "models" / name / "model.so").read_bytes())
    assert read_tasks(kit) == []
    if driver.why_no_gpu() is not None:
        done = subprocess.run(
            [sys.executable, "-m", "gpu_kit"], cwd=kit, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and done.stderr.startswith("gpu_kit: ")
    (kit / "kit.json").unlink()
    with pytest.raises(VitqError, match="is no kit"):
        build_kit([artifact.folder], KitOptions(out=kit))
    with pytest.raises(VitqError, match="has no GPU: a kit is for cuda"):
        build_kit(
            [artifact.folder], KitOptions(out=tmp_path / "other", target=get_target("x86-64"))
        )


def linear() -> Any:
    """A linear layer's kernel for the GPU."""
    rng = np.random.default_rng(0)
    words = [np.ones(96, np.int32) for _ in range(4)]
    weight = rng.integers(-128, 128, (96, 64), dtype=np.int8)
    constants = dict(enumerate([weight, *words, np.array([-128, 127], np.int64)], 1))
    types = [TensorType((1, 40, 64), "int8")]
    types += [TensorType(c.shape, str(c.dtype)) for c in constants.values()]
    out = TensorType((1, 40, 96), "int8")
    return lower_op(names.LINEAR, types, constants, out, GPU.features)


@needs_compiler
def test_candidates_differ_and_compile(tmp_path: Path) -> None:
    kernel = linear().kernel
    found = candidates_of(kernel, 3)
    assert found[0] == kernel.schedule()
    assert len({tuple(sorted(values.items())) for values in found}) == len(found) >= 3
    points = [{"symbol": f"point{i}", "values": values} for i, values in enumerate(found)]
    compile_points(kernel, points, GPU, tmp_path / "kernels.so")
    assert contents((tmp_path / "kernels.so").read_bytes())


@pytest.mark.parametrize("stages", [2, 3])
def test_the_best_known_are_also_timed_with_products_in_flight(stages: int) -> None:
    """Which needs a stage more."""
    known = vars(Tile(16, 32, 4, 1, 1, 64, stages, 1))
    found = candidates_of(linear().kernel, 3, [known])
    assert found[1] == known and (known | {"flight": 1} in found) is (stages == 3)


@pytest.fixture(scope="module")
def tasks(artifact: Artifact) -> list[Task]:
    """Of the embedded model on a GPU."""
    model = import_model(artifact.onnx, Meaning(1))
    return extract(model.integer.mod, GPU.features, GPU.tvm_config())


RIGHT = {"random": True, "extreme": True}


def results_for(
    tasks: list[Task], path: Path, right: dict[str, bool] = RIGHT
) -> list[dict[str, int]]:
    """A kit's results in which the second candidate of each task is the fastest."""
    content, best = [], []
    for task in tasks:
        found = candidates_of(task.kernel, 4)
        times = [5.0, 2.0, None, 7.0, 9.0]
        points = [
            {"values": values, "us": us, "right": {} if us is None else right}
            for values, us in zip(found, times, strict=False)
        ]
        content.append({"task": task.text, "points": points})
        best.append(found[1])
    path.write_text(json.dumps({"tasks": content}))
    return best


def test_a_kit_times_what_the_log_has_and_knows_what_is_right(
    artifact: Artifact, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the default, before what is predicted; compiled elsewhere."""
    path, log = tmp_path / "results.json", tmp_path / "logs" / "cuda-sm_90"
    results_for(tasks, path)
    tune(artifact.folder, TuneOptions(target=get_target("cuda"), results=path, log=log))
    monkeypatch.setattr(places, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(candidates, "compile_points", lambda *_: None)
    found = candidates.Candidates(GPU, tmp_path / "kit", 2)
    found.add(artifact, 1)
    entries = {task["task"]: task for task in found.build()}
    assert set(entries) == {task.text for task in tasks}
    for task in tasks:
        entry = entries[task.text]
        values = [point["values"] for point in entry["points"]]
        timed = candidates_of(task.kernel, 4)
        assert values[:2] == timed[:2], "the default, and the fastest that was timed"
        assert values[2] == timed[3], "the next best: the third failed"
        assert all(v not in values[:i] for i, v in enumerate(values))
        contract = entry["contract"]
        assert set(contract["cases"]) == set(RIGHT)
        assert len(contract["codes"]) == len(entry["types"]) - 1
        constants = np.load(tmp_path / "kit" / entry["folder"] / "constants.npz").files
        drawn = [f"x{i}" for i, codes in enumerate(contract["codes"]) if codes is not None]
        assert drawn and not set(drawn) & set(constants)


def test_results_become_a_log_that_compile_uses(
    artifact: Artifact, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "results.json", tmp_path / "cuda-sm_90"
    best = results_for(tasks, path)
    result = tune(
        artifact.folder, TuneOptions(target=get_target("cuda"), results=path, log=log, prune=True)
    )
    assert result.new_trials > len(tasks) == len(result.tasks)
    assert [task.values for task in result.tasks] == best
    assert all(task.gain == pytest.approx(2.5) for task in result.tasks)
    schedules = open_schedules(log, tuned=True)
    for task, values in zip(tasks, best, strict=True):
        assert schedules(task.kernel) == values
    assert {applied.source for applied in schedules.applied} == {LOG}
    assert json.loads((log / logs.META).read_text())["target"] == "cuda-sm_90"
    monkeypatch.setattr(places, "LOGS", tmp_path)
    assert logs.find_log(GPU, True, None) == log
    assert logs.find_log(get_target("rtx2080ti"), True, None) == log, "the nearest one"
    assert logs.find_log(get_target("x86-64"), True, None) is None


def test_a_wrong_point_is_never_chosen(
    artifact: Artifact, tasks: list[Task], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where a time was written down for it."""
    path, log = tmp_path / "results.json", tmp_path / "cuda-sm_90"
    best = results_for(tasks, path)
    content = json.loads(path.read_text())
    for task in content["tasks"]:
        task["points"][1]["right"] = RIGHT | {"random": False}
    path.write_text(json.dumps(content))
    result = tune(
        artifact.folder, TuneOptions(target=get_target("cuda"), results=path, log=log, prune=True)
    )
    assert all(task.values != wrong for task, wrong in zip(result.tasks, best, strict=True))
    assert [task.values for task in result.tasks] == [task.kernel.schedule() for task in tasks]
    assert caplog.text.count("is WRONG on the GPU") == len(tasks)


def test_results_that_are_none_or_wrong_are_refused(
    artifact: Artifact, tasks: list[Task], tmp_path: Path
) -> None:
    path, log = tmp_path / "results.json", tmp_path / "log"
    options = TuneOptions(target=get_target("cuda"), results=path, log=log)
    with pytest.raises(VitqError, match="is not the result of a kit"):
        tune(artifact.folder, options)
    results_for(tasks, path, RIGHT | {"extreme": False})
    with pytest.raises(VitqError, match=r"no candidate of .* computed the contract's bits"):
        tune(artifact.folder, options)
    results_for(tasks, path, {"random": True})
    with pytest.raises(VitqError, match="not compared with the contract, make the kit again"):
        tune(artifact.folder, options)
    path.write_text(json.dumps({"tasks": []}))
    with pytest.raises(VitqError, match="no times for this model"):
        tune(artifact.folder, options)
    assert not log.exists()


@no_gpu
def test_without_a_gpu_tune_and_benchmark_say_what_to_do(artifact: Artifact) -> None:
    with pytest.raises(VitqError, match=r"cannot be tuned here: there is no NVIDIA .*vitq kit"):
        tune(artifact.folder, TuneOptions(target=get_target("cuda")))
    request = BenchmarkRequest("cuda", "1", "1", None, 2, False, None, None, None, True)
    with pytest.raises(VitqError, match=r"cannot be measured here: .*vitq kit"):
        run_benchmark(artifact.folder, request)


@needs_compiler
def test_tvms_float_model_compiles_for_a_gpu(artifact: Artifact, tmp_path: Path) -> None:
    """The contestant in single precision; products in half precision take minutes to build."""
    from vitq.compiler.benchmark.prepare import Task as Contest
    from vitq.compiler.benchmark.prepare import float_onnx
    from vitq.compiler.benchmark.tvm_float_gpu import build_float_library

    source = float_onnx(Contest(artifact, "cuda", 1))
    build_float_library(source, GPU, tmp_path / "model.so", half=False)
    data = (tmp_path / "model.so").read_bytes()
    assert ("elf", "sm_90") in contents(data) and b"__global__" not in data
