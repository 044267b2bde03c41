"""Compile here, measure there: the kit, its Python runner, and the way back into a log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from compiler.artifacts import Artifact
from compiler.benchmark.show import BenchmarkRequest, run_benchmark
from compiler.cuda import candidates, driver, nvrtc, toolchain
from compiler.cuda.candidates import candidates_of, compile_points
from compiler.cuda.fatbin import contents
from compiler.cuda.kit import KitOptions, build_kit
from compiler.cuda.places import find_tool
from compiler.deploy.bundle import Bundle, DeployOptions, deploy
from compiler.gpu_kit.ffi import RuntimeFailedError
from compiler.gpu_kit.kernels import read_tasks, roofline
from compiler.gpu_kit.model import Model
from compiler.gpu_kit.timing import summary
from compiler.importing import Meaning, import_model
from compiler.kernels import TensorType
from compiler.lower_kernels import lower_op
from compiler.targets import find_compiler, get_target
from compiler.tune import TuneOptions, tune
from compiler.tuning import log as logs
from compiler.tuning.measure import save_constants
from compiler.tuning.schedules import LOG, open_schedules
from compiler.tuning.workload import Task, extract
from numerics.errors import VitqError

needs_compiler = pytest.mark.skipif(
    find_tool("nvcc") is None and nvrtc.version() is None,
    reason=f"no CUDA compiler: {toolchain.HOW}",
)
no_gpu = pytest.mark.skipif(driver.why_no_gpu() is None, reason="there is an NVIDIA GPU here")
GPU = get_target("cuda")


PACKAGE = Path(driver.__file__).parent.parent
HOST_GPU = """
from gpu_kit.timing import Gpu

class HostGpu(Gpu):
    '''CUDA's memory and clock on the host: what is measured there runs on the processor.'''

    def __init__(self):
        self.kept = {}

    def put(self, array):
        copy = array.copy()
        self.kept[copy.ctypes.data] = copy
        return int(copy.ctypes.data)

    def put_into(self, address, array):
        self.kept[address][...] = array

    def get(self, address, array):
        array[...] = self.kept[address]

    def wait(self):
        pass

    def kernel_us(self, launch):
        launch()
        return 1.0
"""


def run_alone(code: str, *arguments: Path) -> str:
    """Run code in a process without TVM, which the runner brings itself; its output."""
    text = f"import sys, numpy as np\nfrom pathlib import Path\n{code}"
    command = [sys.executable, "-c", text, *map(str, arguments)]
    environment = {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUNNER = """
from gpu_kit.ffi import RuntimeFailedError
from gpu_kit.model import Model
folder = Path(sys.argv[1])
pixels, codes = (np.load(folder / f"golden_{what}.npy") for what in ("pixels", "codes"))
model = Model(folder)
assert (model(pixels) == codes).all()
assert not {"tvm", "tvm_ffi", "compiler", "torch"} & set(sys.modules)
import torch
out = model.run(torch.from_numpy(pixels[:1].copy()))
for found in (torch.from_dlpack(out).numpy(), np.from_dlpack(out), out.numpy()):
    assert (found == codes[:1]).all()
for bad in (lambda: model(pixels.astype(np.float32)), lambda: model._invoke("nothing"),
            lambda: model.runtime.function("vitq.nothing")):
    try:
        bad()
    except RuntimeFailedError as error:
        print(error)
"""


def test_the_python_runner_gives_the_golden_integers(bundles: dict[str, Bundle]) -> None:
    """On the processor: the same code drives a GPU, with another library and device."""
    said = run_alone(RUNNER, bundles["vm"].folder).splitlines()
    assert said[0].startswith("pixels must be uint8 (N, 3, 32, 32)")
    assert said[1:] == ["Unknown function: nothing", "the runtime has no function vitq.nothing"]


def test_beside_tvm_the_runner_refuses(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(RuntimeFailedError, match="TVM is loaded"):
        Model(bundles["vm"].folder)


@needs_compiler
def test_a_gpu_bundle_has_what_a_gpu_needs(artifact: Artifact, tmp_path: Path) -> None:
    from compiler.compile import CompileOptions, compile_model

    folder = compile_model(artifact.folder, CompileOptions(target="cuda"))
    bundle = deploy(folder, DeployOptions(tmp_path / "bundle"))
    assert bundle.manifest["gpu"] == ["sm_90"]
    names = {file["path"] for file in bundle.manifest["files"]}
    assert {"lib/libtvm_runtime_cuda.so", "python/gpu_kit/model.py", "vitq-run"} <= names
    if driver.why_no_gpu() is None:
        assert bundle.measured.verified == "here"
        return
    assert bundle.measured.verified == "no"
    command = [bundle.folder / "vitq-run", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "NVIDIA's driver" in done.stderr or "libcuda" in done.stderr
    with pytest.raises(VitqError, match="needs --flavour vm"):
        deploy(folder, DeployOptions(tmp_path / "other", "static"))


@needs_compiler
def test_a_kit_holds_models_and_says_what_to_compare(artifact: Artifact, tmp_path: Path) -> None:
    kit = build_kit([artifact.folder], KitOptions(tmp_path / "kit"))
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
        build_kit([artifact.folder], KitOptions(kit))
    with pytest.raises(VitqError, match="has no GPU: a kit is for cuda"):
        build_kit([artifact.folder], KitOptions(tmp_path / "other", "x86-64"))


def linear() -> Any:
    """A linear layer's kernel for the GPU."""
    rng = np.random.default_rng(0)
    words = [np.ones(96, np.int32) for _ in range(4)]
    weight = rng.integers(-128, 128, (96, 64), dtype=np.int8)
    constants = dict(enumerate([weight, *words, np.array([-128, 127], np.int64)], 1))
    types = [TensorType((1, 40, 64), "int8")]
    types += [TensorType(c.shape, str(c.dtype)) for c in constants.values()]
    out = TensorType((1, 40, 96), "int8")
    return lower_op("vitq.linear", types, constants, out, GPU.features)


@needs_compiler
def test_candidates_differ_and_compile(tmp_path: Path) -> None:
    kernel = linear().kernel
    found = candidates_of(kernel, 3)
    assert found[0] == kernel.schedule()
    assert len({tuple(sorted(values.items())) for values in found}) == len(found) >= 3
    points = [{"symbol": f"point{i}", "values": values} for i, values in enumerate(found)]
    compile_points(kernel, points, GPU, tmp_path / "kernels.so")
    assert contents((tmp_path / "kernels.so").read_bytes())


def test_candidates_are_checked_against_the_first(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    """On the processor: two functions that agree, and one that is missing."""
    target = get_target("cpu")
    p = np.array([0, 0, 8192, 8192, 13, 0, -128, 127], np.int64)
    kind = TensorType((4, 64), "int8")
    types = [kind, kind, TensorType((8,), "int64")]
    call = lower_op("vitq.add", types, {2: p}, kind, target.features)
    tvm_target = tvm.target.Target(target.tvm_config())
    add = call.kernel.build().with_attr("target", tvm_target)
    functions = {name: add.with_attr("global_symbol", name) for name in ("point0", "point1")}
    library = tvm.compile(tvm.IRModule(functions), target=tvm_target)
    library.export_library(str(tmp_path / "kernels.so"), cc=find_compiler(target))
    constants = [None, None, *(o for o in call.operands[2:] if not isinstance(o, int))]
    save_constants(tmp_path / "constants.npz", constants)
    task = {
        "task": "add",
        "folder": ".",
        "types": [[list(t.shape), t.dtype] for t in (*call.kernel.inputs, kind)],
        "points": [{"symbol": f"point{i}", "values": {"x": i}} for i in range(3)],
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    code = (
        HOST_GPU
        + """
import json
from gpu_kit.ffi import Runtime
from gpu_kit.kernels import measure_task
folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
print(json.dumps(measure_task(folder, task, Runtime(Path(sys.argv[2]), cuda=False), HostGpu())))
"""
    )
    points = json.loads(run_alone(code, tmp_path, bundles["vm"].folder / "lib"))["points"]
    assert [point.get("same_bits") for point in points] == [True, True, None]
    assert [point["us"] for point in points] == [1.0, 1.0, None]
    assert "point2" in points[2]["error"]


def test_roofline() -> None:
    points = [{"us": 5.0}, {"us": 4.0}, {"us": None}]
    tasks = [
        {"task": "product", "macs": 10**9, "bytes": 10**6, "points": points},
        {"task": "norm", "macs": 0, "bytes": 10**6, "points": points[:1]},
        {"task": "failed", "macs": 0, "bytes": 1, "points": points[2:]},
    ]
    product, norm = roofline(tasks, macs_per_s=5e14, bytes_per_s=4e12)
    assert product["us"] == 4.0 and product["floor_us"] == pytest.approx(2.0)
    assert product["share_of_int8_rate"] == pytest.approx(0.5)
    assert norm["times_floor"] == pytest.approx(20.0) and norm["share_of_int8_rate"] == 0


def test_summary_of_times() -> None:
    found = summary([1.0, 2.0, 3.0, 4.0], 8)
    assert found["median_ms"] == 2.5 and found["p95_ms"] == 4.0
    assert found["images_per_s"] == pytest.approx(3200)


@pytest.fixture(scope="module")
def tasks(artifact: Artifact) -> list[Task]:
    """Of the embedded model on a GPU."""
    model = import_model(artifact.onnx, Meaning(1))
    return extract(model.integer.mod, GPU.features, GPU.tvm_config())


def results_for(tasks: list[Task], path: Path, same: bool = True) -> list[dict[str, int]]:
    """A kit's results in which the second candidate of each task is the fastest."""
    content, best = [], []
    for task in tasks:
        found = candidates_of(task.kernel, 4)
        times = [5.0, 2.0, None, 7.0, 9.0]
        points = [
            {"values": values, "us": us, "same_bits": same}
            for values, us in zip(found, times, strict=False)
        ]
        content.append({"task": task.text, "points": points})
        best.append(found[1])
    path.write_text(json.dumps({"tasks": content}))
    return best


def test_a_kit_times_what_the_log_has(
    artifact: Artifact, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the default, before what is predicted; compiled elsewhere."""
    path, log = tmp_path / "results.json", tmp_path / "logs" / "cuda-sm_90"
    results_for(tasks, path)
    tune(artifact.folder, TuneOptions("cuda", results=path, log=log))
    monkeypatch.setattr(logs, "LOGS", tmp_path / "logs")
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


def test_results_become_a_log_that_compile_uses(
    artifact: Artifact, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "results.json", tmp_path / "cuda-sm_90"
    best = results_for(tasks, path)
    result = tune(artifact.folder, TuneOptions("cuda", results=path, log=log, prune=True))
    assert result.new_trials > len(tasks) == len(result.tasks)
    assert [task.values for task in result.tasks] == best
    assert all(task.gain == pytest.approx(2.5) for task in result.tasks)
    schedules = open_schedules(log, tuned=True)
    for task, values in zip(tasks, best, strict=True):
        assert schedules(task.kernel) == values
    assert {applied.source for applied in schedules.applied} == {LOG}
    assert json.loads((log / logs.META).read_text())["target"] == "cuda-sm_90"
    monkeypatch.setattr(logs, "LOGS", tmp_path)
    assert logs.find_log(GPU, True, None) == log
    assert logs.find_log(get_target("rtx2080ti"), True, None) == log, "the nearest one"
    assert logs.find_log(get_target("x86-64"), True, None) is None


def test_results_that_are_none_or_wrong_are_refused(
    artifact: Artifact, tasks: list[Task], tmp_path: Path
) -> None:
    path, log = tmp_path / "results.json", tmp_path / "log"
    options = TuneOptions("cuda", results=path, log=log)
    with pytest.raises(VitqError, match="is not the result of a kit"):
        tune(artifact.folder, options)
    results_for(tasks, path, same=False)
    with pytest.raises(VitqError, match="computed other bits"):
        tune(artifact.folder, options)
    path.write_text(json.dumps({"tasks": []}))
    with pytest.raises(VitqError, match="no times for this model"):
        tune(artifact.folder, options)
    assert not log.exists()


@no_gpu
def test_without_a_gpu_tune_and_benchmark_say_what_to_do(artifact: Artifact) -> None:
    with pytest.raises(VitqError, match=r"cannot be tuned here: there is no NVIDIA .*vitq kit"):
        tune(artifact.folder, TuneOptions("cuda"))
    request = BenchmarkRequest("cuda", "1", "1", None, 2, False, None, None, None, True)
    with pytest.raises(VitqError, match=r"cannot be measured here: .*vitq kit"):
        run_benchmark(artifact.folder, request)


@needs_compiler
def test_tvms_float_model_compiles_for_a_gpu(artifact: Artifact, tmp_path: Path) -> None:
    """The contestant in single precision; products in half precision take minutes to build."""
    from compiler.benchmark.prepare import Task as Contest
    from compiler.benchmark.prepare import float_onnx
    from compiler.cuda.tvm_float import build_float_library

    source = float_onnx(Contest(artifact, "cuda", 1))
    build_float_library(source, GPU, tmp_path / "model.so", half=False)
    data = (tmp_path / "model.so").read_bytes()
    assert ("elf", "sm_90") in contents(data) and b"__global__" not in data
