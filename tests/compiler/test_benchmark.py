"""The benchmark's machinery on the embedded model; never a figure's size."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from vitq.compiler.benchmark import benchmark as stage
from vitq.compiler.benchmark.benchmark import BenchmarkOptions, benchmark, prepare_all
from vitq.compiler.benchmark.measuring import model_size
from vitq.compiler.benchmark.operations import Operand, family_of, work_of
from vitq.compiler.benchmark.prepare import Task, calibration_batches, pictures
from vitq.compiler.benchmark.rounds import ContestantProcess, Key, run_rounds, runs_for, summarize
from vitq.compiler.cli import benchmark_report as show
from vitq.compiler.cli import main as cli
from vitq.compiler.support import extras
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.support.limits import usable_cores
from vitq.compiler.support.worker import WorkerError
from vitq.compiler.target.table import CPU_TARGETS, Target
from vitq.numerics.errors import VitqError

PROMISED = {
    "name", "batch", "threads", "median_ms", "p10_ms", "p90_ms", "images_per_s", "peak_rss_mb",
}  # fmt: skip


class FakeWorker:
    """Stands in for a process; writes down the order of turns."""

    facts = {"base_rss_mb": 100.0}  # noqa: RUF012

    def __init__(self, name: str, order: list[str], fails: bool = False) -> None:
        self.name, self.order, self.fails = name, order, fails
        self.samples_ms: list[float] = []
        self.idle_cpu_ms = [0.5, 0.1, 0.3]
        self.peak_rss_mb = 164.0
        self.closed = False

    def turn(self) -> None:
        if self.fails:
            raise WorkerError("out of memory")
        self.order.append(self.name)
        self.samples_ms.append(float(len(self.samples_ms)))

    def close(self) -> None:
        self.closed = True


def test_rounds_go_over_all_contestants_in_turn() -> None:
    order: list[str] = []
    workers = {(name, 1): FakeWorker(name, order, name == "bad") for name in ("a", "bad", "b")}
    bad = workers["bad", 1]
    failed = run_rounds(cast(dict[Key, ContestantProcess], workers), rounds=3)
    assert order == ["a", "b"] * 3
    assert failed == {("bad", 1): "out of memory"}
    assert bad.closed and ("bad", 1) not in workers


def test_summary_of_samples() -> None:
    worker = FakeWorker("a", [])
    worker.samples_ms = [float(n) for n in range(11)]
    row = summarize(("a", 8), threads=2, worker=cast(ContestantProcess, worker), size_mb=3.0)
    assert (row.median_ms, row.p10_ms, row.p90_ms) == (5.0, 1.0, 9.0)
    assert row.images_per_s == pytest.approx(1600.0)
    assert (row.model_rss_mb, row.idle_cpu_ms, row.runs) == (64.0, 0.3, 11)
    assert set(row.to_json()) >= PROMISED


def test_a_turn_takes_as_long_for_everyone() -> None:
    assert [runs_for(ms) for ms in (0.0, 0.1, 3.0, 20.0, 100.0)] == [50, 50, 10, 3, 1]


@pytest.mark.parametrize(
    ("kernel", "shapes", "mac", "family"),
    [
        ("linear_0", [(1, 197, 192), (36, 48, 64), (1, 197, 3, 3, 64)], None, "linear"),
        ("linear_gelu_2", [(2, 197, 192), (48, 48, 64), (2, 197, 768)], 2 * 197 * 192 * 768,
         "linear"),
        ("patch_embed_0", [(2, 3, 32, 32), (4, 12, 64), (2, 64, 48)], 2 * 64 * (3 * 4 * 4) * 48,
         "linear"),
        ("attention_0", [(2, 197, 3, 6, 64), (3,), (2, 197, 6, 64)],
         2 * (2 * 6 * 197 * 197 * 64), "attention"),
        ("matmul_1", [(6, 10, 64), (6, 64, 20), (6, 10, 20)], 6 * 10 * 64 * 20, "attention"),
        ("layernorm_0", [(1, 197, 192), (1, 197, 192)], 0, "elementwise"),
        ("linearize_0", [(4,), (4,)], None, "elementwise"),
    ],
)  # fmt: skip
def test_work_of_a_kernel(
    kernel: str, shapes: list[tuple[int, ...]], mac: int | None, family: str
) -> None:
    operands = [Operand(shape, 2 if i == 0 else 1) for i, shape in enumerate(shapes)]
    work = work_of(kernel, operands)
    if mac is not None:
        assert work.mac == mac
    expected = sum(int(np.prod(s)) * (2 if i == 0 else 1) for i, s in enumerate(shapes))
    assert work.moved_bytes == expected
    assert family_of(kernel) == family


def embedded_mac(artifact: Artifact) -> int:
    """All products of the embedded model at batch 1, counted from its float module."""
    import torch

    from vitq.compiler.stages.float_reference import float_model

    module, shape = float_model(artifact.folder)
    counts: list[int] = []

    def count(layer: Any, inputs: Any, output: Any) -> None:
        weights = layer.weight.numel()
        counts.append(weights * (output.numel() // layer.weight.shape[0]))

    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    module(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(counts)


@pytest.fixture(scope="module")
def report(compiled: Path, artifact: Artifact) -> stage.Report:
    names = ("vitq-int8-tuned", "onnxruntime-int8-qdq", "torch-fp32")
    return benchmark(compiled, BenchmarkOptions(contestants=names, rounds=2, profile=True))


def test_rows_of_the_embedded_model(report: stage.Report) -> None:
    content = json.loads(json.dumps(report.to_json()))
    assert [row["name"] for row in content["rows"]] == [
        "vitq-int8-tuned", "onnxruntime-int8-qdq", "torch-fp32",
    ]  # fmt: skip
    for row in content["rows"]:
        assert set(row) >= PROMISED
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["peak_rss_mb"] > row["model_rss_mb"] >= 0
        assert (row["batch"], row["threads"]) == (1, 1)
    assert content["rows"][0]["size_mb"] > 0
    assert content["skipped"] == []
    assert len(content["machine"]["cores_used"]) == 1
    assert content["machine"]["versions"]["vitq"] != "not installed"


def test_further_artifacts_take_part(artifact: Artifact, tmp_path: Path) -> None:
    other = tmp_path / "my_model" / "w8a8-copy"
    shutil.copytree(artifact.folder, other, ignore=shutil.ignore_patterns("benchmark", "cpu*"))
    options = BenchmarkOptions(contestants=(stage.OWN,), rounds=1, beside=(other,))
    found = benchmark(artifact.folder, options)
    assert [row.name for row in found.rows] == [stage.OWN, "my_model/w8a8-copy"]
    assert found.skipped == [] and (other / "cpu" / "model.so").is_file()
    assert found.rows[0].size_mb == found.rows[1].size_mb


def test_profile_counts_what_the_float_model_does(report: stage.Report, artifact: Artifact) -> None:
    (profile,) = report.profiles
    attention = [row for row in profile.kernels if row.family == "attention"]
    linear = sum(row.mac * row.calls for row in profile.kernels if row.family == "linear")
    total = embedded_mac(artifact)
    # The last block works on fewer tokens than PyTorch's: what the logits need.
    assert 0.5 * total < linear <= total
    batch, tokens, _, heads, width = attention[0].shapes[0]
    assert attention[0].mac == 2 * batch * heads * tokens * tokens * width
    assert profile.tokens == tokens
    assert profile.kernels_ms == pytest.approx(sum(profile.families_ms().values()))
    shares = [kernel["share"] for kernel in profile.to_json()["kernels"]]
    assert sum(shares) == pytest.approx(1)
    assert all(row.calls >= 1 and row.us > 0 and row.insitu_us > 0 for row in profile.kernels)
    for value in (profile.peak.gmac_s, profile.peak.memory_gb_s, profile.peak.l2_gb_s):
        assert 0.1 < value < 1e5


@pytest.mark.parametrize("target", list(CPU_TARGETS.values()), ids=lambda target: target.name)
def test_the_peak_kernel_fits_into_registers(target: Target) -> None:
    from vitq.compiler.benchmark.peak import dot_kernel, tile_of
    from vitq.compiler.kernels.cpu.dots import dot_for

    dot = dot_for(target.features)
    rows, columns = tile_of(dot)
    assert rows >= 1 and rows * columns + columns + dot.spare <= dot.registers
    assert dot_kernel(target.features, 2) is not None


def test_report_is_printed(report: stage.Report, capsys: pytest.CaptureFixture[str]) -> None:
    from vitq.compiler.cli.benchmark_tables import print_report

    report.skipped.append({"name": "x", "batch": 1, "threads": 1, "reason": "because"})
    print_report(report)
    report.skipped.pop()
    text = capsys.readouterr().out
    for part in ("vitq-int8-tuned", "linear_0", "of peak", "because", "images/s"):
        assert part in text


def test_absent_packages_are_a_reason_that_names_the_extra(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "installed", lambda package: None)
    ready, reasons = prepare_all([Task(artifact, "cpu", 1)], ("openvino-int8", "onnxruntime-fp32"))
    assert ready == []
    assert "vitq[benchmark]" in reasons["openvino-int8", 1]
    assert "nncf" in reasons["openvino-int8", 1]


def test_a_foreign_model_has_no_float_contestants(artifact: Artifact, tmp_path: Path) -> None:
    foreign = Artifact(tmp_path)
    foreign.onnx.write_bytes(artifact.onnx.read_bytes())
    names = ("onnxruntime-int8-qdq", "torch-fp32")
    ready, reasons = prepare_all([Task(foreign, "cpu", 1)], names)
    assert [(entry.key, entry.path) for entry in ready] == [((names[0], 1), foreign.onnx)]
    assert "unknown" in reasons["torch-fp32", 1]
    pixels, real = pictures(Task(foreign, "cpu", 3), 3)
    assert pixels.shape == real.shape == (3, 3, 32, 32)


def test_a_worker_that_cannot_load_says_why(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, pixels=np.zeros(1), real=np.zeros(1))
    path = str(tmp_path / "none.onnx")
    spec = {"loader": "onnxruntime", "path": path, "inputs": str(inputs), "threads": 1}
    with pytest.raises(WorkerError, match=r"none\.onnx"):
        ContestantProcess({**spec, "cores": usable_cores(1)})


def test_what_libraries_print_does_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    stage.isolated(print, "progress", flush=True)
    found = capfd.readouterr()
    assert found.out == "" and "progress" in found.err


def test_everyone_gets_the_same_pictures(artifact: Artifact) -> None:
    task = Task(artifact, "cpu", 11)
    pixels, real = pictures(task, 11)
    assert pixels.dtype == np.uint8 and len(pixels) == 11
    np.testing.assert_array_equal(pixels[8:], pixels[:3])
    np.testing.assert_allclose(real, (pixels / 255 - 0.5) / 0.5, atol=1e-6)
    assert [batch.shape[0] for batch in calibration_batches(task)] == [11]


def test_model_size_counts_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark" / "float-b1-abc"
    folder.mkdir(parents=True)
    (folder / "model.xml").write_bytes(b"12")
    (folder / "model.bin").write_bytes(b"345")
    assert model_size(folder / "model.xml") == 5
    assert model_size(tmp_path) == 0


def test_openvino_runs_on_the_embedded_model(artifact: Artifact) -> None:
    pytest.importorskip("openvino", reason="the extra vitq[benchmark] is not installed")
    pytest.importorskip("nncf", reason="the extra vitq[benchmark] is not installed")
    options = BenchmarkOptions(contestants=("openvino-int8",), rounds=1)
    content = benchmark(artifact.folder, options)
    assert content.skipped == []
    assert content.rows[0].size_mb > 0
    (cached,) = (artifact.folder / "benchmark").glob("openvino-nncf-b1-*")
    before = cached.stat().st_mtime_ns
    prepare_all([Task(artifact, "cpu", 1)], ("openvino-int8",))
    assert cached.stat().st_mtime_ns == before, "built again although nothing changed"


def test_bad_inputs_are_one_line(
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(extras, "installed", lambda package: None)
    folder = str(artifact.folder)
    cases = {
        "no artifact": ([str(tmp_path)], "no artifact"),
        "batch": ([folder, "--batch", "1,x"], "--batch '1,x'"),
        "batch 0": ([folder, "--batch", "0"], "batch 0"),
        "threads": ([folder, "--threads", "9999"], "--threads 9999"),
        "threads 0": ([folder, "--threads", "0"], "--threads 0"),
        "rounds": ([folder, "--rounds", "0"], "--rounds 0"),
        "contestant": ([folder, "--contestants", "vitq"], "choose vitq-int8-tuned"),
        "target": ([folder, "--target", "toaster"], "toaster"),
        "one size": ([folder, "--scaling", "224"], "two picture sizes"),
        "no second artifact": ([folder, str(tmp_path)], "no artifact"),
        "several on a GPU": ([folder, folder, "--target", "cuda"], "not for cuda"),
        "no matplotlib": ([folder, "--plot", "a.png"], "vitq[benchmark]"),
    }
    for name, (arguments, text) in cases.items():
        monkeypatch.setattr(sys, "argv", ["vitq", "benchmark", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        error = capsys.readouterr().err
        assert stop.value.code == 2, name
        assert text in error and len(error.strip().splitlines()) == 1, f"{name}: {error}"


def test_json_has_few_digits() -> None:
    assert show.rounded({"a": [1.23456789, 3, "x"], "b": (None,)}) == {
        "a": [1.2346, 3, "x"],
        "b": [None],
    }


def test_a_picture_needs_a_known_suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda package: "1")
    request = show.BenchmarkRequest(
        None, "1", "1", None, 1, False, None, Path("a.bmp"), None, False
    )
    with pytest.raises(VitqError, match=r"\.png"):
        request.options()
