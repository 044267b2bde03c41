"""What runs on a machine with a GPU and without TVM, run here on the processor."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.cuda.host_gpu import HOST_MAIN, run_alone, write_kit
from vitq.compiler.deploy.bundle import Bundle
from vitq.compiler.gpu_kit.contents import open_kit
from vitq.compiler.gpu_kit.ffi import RuntimeFailedError
from vitq.compiler.gpu_kit.kernels import roofline
from vitq.compiler.gpu_kit.model import Model
from vitq.compiler.gpu_kit.timing import summary

RUNNER = """
from gpu_kit.ffi import RuntimeFailedError
from gpu_kit.model import Model
folder = Path(sys.argv[1])
pixels, codes = (np.load(folder / f"golden_{what}.npy") for what in ("pixels", "codes"))
model = Model(folder)
assert (model(pixels) == codes).all()
assert not {"tvm", "tvm_ffi", "vitq", "torch"} & set(sys.modules)
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


@pytest.fixture(scope="module")
def whole_kit(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not edit it."""
    kit = tmp_path_factory.mktemp("host") / "kit"
    write_kit(kit, bundles["vm"].folder)
    return kit


@pytest.fixture
def kit(whole_kit: Path, tmp_path: Path) -> Path:
    """One that may be edited."""
    return Path(shutil.copytree(whole_kit, tmp_path / "kit"))


ALONE = 'assert not {"tvm", "tvm_ffi", "vitq"} & set(sys.modules)'


def run_kit(kit: Path, code: str, *options: str) -> tuple[dict[str, Any], str]:
    """Run it in a process without TVM; its results and its output, the exit code at the end."""
    path = kit / "results.json"
    run = f"{HOST_MAIN}\n{code}\nprint(program.main())\n{ALONE}"
    said = run_alone(run, kit, path, *map(Path, options))
    return json.loads(path.read_text()), said


NO_BENCHMARK = ("--skip", "benchmark,peak")


def test_every_kernel_is_compared_with_the_contract_on_both_inputs(kit: Path) -> None:
    results, said = run_kit(kit, "", *NO_BENCHMARK)
    (task, again) = results["tasks"]
    assert [point["right"] for point in task["points"]] == [
        {"random": True, "extreme": True},
        {"random": False, "extreme": True},
        {"random": True, "extreme": True},
        {},
    ]
    assert [point["us"] for point in task["points"]] == [1.0, None, 1.0, None], "wrong: not timed"
    assert again["points"] == task["points"]
    (wrong, failed, *_) = results["errors"]
    assert wrong["what"] == "add, {'x': 1}" and "contract's on random inputs" in wrong["error"]
    assert failed["what"] == "add, {'x': 3}" and "no function point3" in failed["error"]
    assert len(results["errors"]) == 4
    assert said.splitlines()[-3].endswith(
        "1 models' golden integers, those of 0 differ; 12 kernels x inputs compared with the "
        "contract, 2 differ, 2 kernels failed"
    )
    assert "DIFFER" in said.splitlines()[-2] and said.splitlines()[-1] == "1"


def keep_points(kit: Path, *indices: int) -> None:
    """Leave the other points of all tasks out."""
    tasks = json.loads((kit / "tasks.json").read_text())
    for task in tasks:
        task["points"] = [task["points"][i] for i in indices]
    (kit / "tasks.json").write_text(json.dumps(tasks))


def test_when_all_are_right_the_exit_code_is_0(kit: Path) -> None:
    keep_points(kit, 0, 2)
    results, said = run_kit(kit, "", *NO_BENCHMARK)
    assert results["errors"] == [] and said.splitlines()[-1] == "0"
    assert "8 kernels x inputs compared with the contract, 0 differ" in said.splitlines()[-2]


def test_points_that_agree_with_each_other_only_are_wrong(kit: Path) -> None:
    """The first point is no reference: without a right one all are wrong."""
    keep_points(kit, 1, 1)
    results, said = run_kit(kit, "", *NO_BENCHMARK)
    right = [point["right"] for task in results["tasks"] for point in task["points"]]
    assert right == [{"random": False, "extreme": True}] * 4 and said.splitlines()[-1] == "1"


def test_an_output_that_is_not_written_is_wrong(kit: Path) -> None:
    """What a kernel before it left there does not count."""
    keep_points(kit, 0, 2)
    lazy = """
from gpu_kit import kernels
kernels.Runtime.method = lambda self, module, name, real=kernels.Runtime.method: (
    (lambda *_: None) if name == "point2" else real(self, module, name))
"""
    results, _ = run_kit(kit, lazy, *NO_BENCHMARK)
    right = [list(point["right"].values()) for point in results["tasks"][0]["points"]]
    assert right == [[True, True], [False, False]]


def test_another_numpys_inputs_are_an_error(kit: Path) -> None:
    keep_points(kit, 0)
    other = """
real = np.random.default_rng
np.random.default_rng = lambda seed: real(seed + 1)
"""
    results, said = run_kit(kit, other, *NO_BENCHMARK)
    assert results["tasks"] == [] and said.splitlines()[-1] == "1"
    assert all(
        f"draws other random inputs than the kit's {np.__version__}" in entry["error"]
        for entry in results["errors"]
    )
    assert len(results["errors"]) == 2


def test_a_wrong_golden_integer_is_an_error(kit: Path) -> None:
    path = kit / "models" / "digits" / "golden_codes.npy"
    codes = np.load(path)
    codes.flat[0] += 1
    np.save(path, codes)
    results, said = run_kit(kit, "", "--skip", "tasks,benchmark,peak")
    assert results["golden"][0]["different"] == 1 and said.splitlines()[-1] == "1"
    assert results["errors"] == [{"what": "golden digits", "error": "1 integers differ"}]


@pytest.mark.parametrize("path", [
    "models/digits", "models/digits/golden_codes.npy", "tasks/1/kernels.so", "lib", "tasks.json",
])  # fmt: skip
def test_an_incomplete_kit_is_refused_before_the_gpu_is_touched(kit: Path, path: str) -> None:
    found = kit / path
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    with pytest.raises(RuntimeFailedError, match=rf"incomplete, copy it again: missing {path}$"):
        open_kit(kit)
    untouched = "def touched(*_, **__): raise SystemExit('touched')\nprogram.Runtime = touched\n"
    said = run_alone(f"{HOST_MAIN}{untouched}print(program.main())", kit, kit / "results.json")
    assert said.splitlines() == ["2"] and not (kit / "results.json").exists()


def test_many_missing_paths_are_counted(kit: Path) -> None:
    for name in ("models", "tasks", "lib"):
        shutil.rmtree(kit / name)
    about = json.loads((kit / "kit.json").read_text())
    about["models"] += [f"m{i}" for i in range(5)]
    about["benchmarks"][0] |= {"libraries": {"vitq-int8": "other"}, "onnx": "models/x.onnx"}
    (kit / "kit.json").write_text(json.dumps(about))
    with pytest.raises(RuntimeFailedError, match=r"missing lib, models, .* and 5 more$"):
        open_kit(kit)
    (kit / "kit.json").unlink()
    with pytest.raises(RuntimeFailedError, match="is no kit"):
        open_kit(kit)


def test_what_would_begin_too_late_is_left_out(kit: Path) -> None:
    """A kernel takes a minute of a clock that nothing else moves."""
    keep_points(kit, 0, 2)
    clock = """
from gpu_kit import results
now = [0.0]
results.time.monotonic = lambda: now[0]
def kernel_us(self, launch):
    now[0] += 60
    return 1.0
HostGpu.kernel_us = kernel_us
"""
    results, said = run_kit(kit, clock, "--minutes", "2")
    assert len(results["golden"]) == 1 and len(results["tasks"]) == 1 and not results["rows"]
    assert len(results["tasks"][0]["points"]) == 2, "what has begun is finished"
    assert results["left_out"] == ["add", "benchmark digits batch 1", "peak"]
    assert said.splitlines()[-2:] == [
        "left out after 2 minutes: add; benchmark digits batch 1; peak", "0",
    ]  # fmt: skip


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
