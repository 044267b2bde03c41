"""quantize, export, compile, verify, run, evaluate, inspect on the embedded model."""

import json
import logging
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.export import export
from vitq.compiler.stages.inspect import inspect
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.run import run
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact, file_hash
from vitq.models.digits_vit.data import eval_images
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.graph import artifact as artifact_storage
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.relay_passes.dialect import names


def test_artifact_has_the_promised_files(artifact: Artifact, compiled: Path) -> None:
    files = {path.name for path in artifact.folder.iterdir()}
    assert {"quantize.json", "quantized.safetensors", "model.onnx", "export.json", "cpu"} <= files
    assert {path.name for path in compiled.iterdir()} == {
        "model.so",
        "metadata.json",
        "golden.npz",
    }


def test_metadata_says_what_the_library_is(compiled: Path) -> None:
    metadata = json.loads((compiled / "metadata.json").read_text())
    assert metadata["inputs"] == [{"name": "pixels", "shape": [1, 3, 32, 32], "dtype": "uint8"}]
    assert metadata["outputs"][0]["shape"] == [1, 10]
    assert metadata["outputs"][0]["scale"] > 0
    assert metadata["float_islands"] == []
    assert metadata["sha256"]["model.so"] == file_hash(compiled / "model.so")
    assert metadata["versions"]["apache-tvm"] == "0.27.0.post1"
    assert metadata["accumulators"]


def test_unchanged_stages_are_not_done_again(
    artifact: Artifact, compiled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in artifact.folder.rglob("*")}
    options = QuantizeOptions(artifacts=artifact.folder.parents[1])
    with caplog.at_level(logging.INFO):
        quantize(options)
        export(artifact)
        compile_model(artifact.folder, CompileOptions())
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "quantize: unchanged",
        "export: unchanged",
        "compile: unchanged",
    ]
    assert {path: path.stat().st_mtime_ns for path in artifact.folder.rglob("*")} == before


def test_other_options_are_another_artifact(artifact: Artifact) -> None:
    options = QuantizeOptions(artifacts=artifact.folder.parents[1])
    assert replace(options, method=get_method("minmax")).artifact.folder != artifact.folder
    ivit = Recipe(nonlinear=Nonlinear.IVIT)
    assert replace(options, recipe=ivit).artifact.folder != artifact.folder


def test_verify_is_exact_on_real_random_and_extreme_pictures(compiled: Path) -> None:
    checks = verify(compiled)
    assert {check.name for check in checks} >= {
        "golden",
        "real",
        "random",
        "all 0",
        "all 255",
        "checkerboard",
    }
    assert sum(check.pictures for check in checks) >= 64
    assert all(check.different == 0 and check.values > 0 for check in checks)


def test_batch_8_gives_the_same_integers(artifact: Artifact, compiled: Path) -> None:
    folder = compile_model(artifact.folder, CompileOptions(batch=8))
    assert folder.name == "cpu-b8"
    assert all(check.different == 0 for check in verify(folder))
    pixels, _ = eval_images(11)
    one, eight = (open_compiled(f).library()(np.array(pixels)) for f in (compiled, folder))
    assert np.array_equal(one, eight)


def test_threads_do_not_change_the_integers(compiled: Path) -> None:
    assert all(check.different == 0 for check in verify(compiled, threads=2))


def test_verify_finds_a_difference(compiled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(compiled.parent, tmp_path / "copy") / compiled.name
    with np.load(copy / "golden.npz") as golden:
        pixels, codes = golden["pixels"], golden["codes"].copy()
    codes[0, 0] += 1
    np.savez(copy / "golden.npz", pixels=pixels, codes=codes)
    with pytest.raises(VitqError, match=r"golden\.npz is not the file that compile wrote: compile"):
        verify(copy)
    metadata = json.loads((copy / "metadata.json").read_text())
    metadata["sha256"]["golden.npz"] = file_hash(copy / "golden.npz")
    (copy / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(VitqError, match="1 of 80 integers differ from the golden"):
        verify(copy)


def test_an_exchanged_library_is_refused(compiled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(compiled.parent, tmp_path / "copy") / compiled.name
    with (copy / "model.so").open("ab") as file:
        file.write(b"x")
    with pytest.raises(VitqError, match="not the library that was compiled"):
        verify(copy)


def test_run_writes_logits_and_integers(compiled: Path, tmp_path: Path) -> None:
    pixels, _ = eval_images(5)
    np.save(tmp_path / "x.npy", pixels)
    outputs = {}
    for backend in ("library", "reference"):
        for raw in (False, True):
            path = tmp_path / f"{backend}{raw}.npy"
            run(compiled, tmp_path / "x.npy", path, raw, backend)  # type: ignore[arg-type]
            outputs[backend, raw] = np.load(path)
    logits, codes = outputs["library", False], outputs["library", True]
    assert logits.shape == codes.shape == (5, 10)
    assert logits.dtype == np.float32 and codes.dtype == np.int16
    assert np.array_equal(codes, outputs["reference", True])
    assert np.array_equal(logits, outputs["reference", False])
    scale = open_compiled(compiled).metadata["outputs"][0]["scale"]
    np.testing.assert_allclose(logits, codes * scale, rtol=1e-6, atol=0)


def test_integer_accuracy_is_within_half_a_point_of_float(compiled: Path) -> None:
    rows = {row.name: row for row in evaluate(compiled)}
    assert list(rows) == ["float", "onnxruntime", "reference", "library"]
    floats, library = rows["float"], rows["library"]
    assert floats.top1 is not None and library.top1 is not None
    assert floats.top1 / floats.images >= 0.97
    assert (floats.top1 - library.top1) / floats.images <= 0.005
    assert library.agreement >= 0.99 and library.mean_cosine >= 0.999
    reference = rows["reference"]
    assert (reference.top1, reference.mean_cosine) == (library.top1, library.mean_cosine)


def test_evaluate_refuses_an_unknown_backend(compiled: Path) -> None:
    with pytest.raises(VitqError, match="'magic' is unknown: choose float, onnxruntime"):
        evaluate(compiled, backends=("magic",))


def test_inspect_shows_operators_scales_and_no_float(compiled: Path) -> None:
    content = inspect(compiled)
    target = content["targets"]["cpu"]
    assert target["float_islands"] == []
    assert target["integer_ops"][names.LAYERNORM] == 9
    assert not [op for op in target["integer_ops"] if "quantize" in op and op != names.REQUANTIZE]
    assert all(row["scale"] > 0 for row in content["quantizers"])
    assert content["provenance"]["method"] == "repq"
    assert target["accumulators"]["proven"] > 0


def test_a_stage_without_the_one_before_says_so(tmp_path: Path, artifact: Artifact) -> None:
    (tmp_path / "quantize.json").write_text("{}")
    with pytest.raises(VitqError, match="run export first"):
        compile_model(tmp_path, CompileOptions())
    with pytest.raises(VitqError, match="holds no compiled library: run compile first"):
        verify(tmp_path)


def test_the_machine_code_computes_with_integers_only(compiled: Path) -> None:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump: install binutils")
    command = [objdump, "-d", "--no-show-raw-insn", str(compiled / "model.so")]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    opcodes = {
        line.split()[1] for line in listing.splitlines() if re.match(r"\s+[0-9a-f]+:\t\S", line)
    }
    assert len(opcodes) > 50
    arithmetic = re.compile(
        r"v?(add|sub|mul|div|sqrt|min|max|round|rcp|rsqrt|fn?m(add|sub)\d*)(ps|pd|ss|sd)|v?cvt\w+|f\w+"
    )
    assert [code for code in sorted(opcodes) if arithmetic.fullmatch(code)] == []


def test_a_stage_killed_between_its_files_is_not_taken_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QuantizeOptions(calib_count=2, artifacts=tmp_path)
    folder = quantize(options).folder
    assert (folder / "quantize.json").is_file()
    write = artifact_storage.write_atomically

    def killed_before_the_json(path: Path, content: bytes | str) -> None:
        if path.name == "quantize.json":
            assert not path.exists() and (folder / "quantized.safetensors").is_file()
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(artifact_storage, "write_atomically", killed_before_the_json)
    with pytest.raises(KeyboardInterrupt):
        quantize(replace(options, calib_count=3))
    assert not [*folder.iterdir()]
    monkeypatch.undo()
    quantize(options)
    assert (folder / "quantized.safetensors").is_file()
