"""evaluate: what is proven equal is taken; labels are checked; changes and doubts are said."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.stages import build as building
from vitq.compiler.stages import evaluate as stage
from vitq.compiler.stages import float_reference as float_side
from vitq.compiler.stages.changes import warn_of_changes
from vitq.compiler.stages.compile import CompileOptions
from vitq.compiler.stages.evaluate import FILE_SAMPLE, PROVEN_SAMPLE, SAMPLE, evaluate, spread
from vitq.compiler.stages.proof import PROOF_NAME, keep_proof, proven_integers
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.scores import Scores, row_of
from vitq.compiler.stages.verify import IntegersDifferError, verify
from vitq.compiler.support.artifacts import Artifact
from vitq.models.digits_vit.data import calibration_images, eval_images
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.plan.methods import get_method


@pytest.fixture
def target(compiled: Path, tmp_path: Path) -> Path:
    """A compiled model of this test's own, never verified or evaluated."""
    own = shutil.copytree(compiled.parent, tmp_path / "artifact")
    (own / compiled.name / PROOF_NAME).unlink(missing_ok=True)
    return own / compiled.name


def logits_of(number: int, seed: int) -> FloatArray:
    """Random logits of ten classes."""
    return np.random.RandomState(seed).randn(number, 10).astype(np.float32)


def test_sums_over_batches_are_those_of_all_at_once() -> None:
    ours, floats = logits_of(203, 0), logits_of(203, 0) + 0.5 * logits_of(203, 1)
    labels = np.random.RandomState(2).randint(0, 10, 203)
    scores = Scores("library")
    for start in range(0, 203, 64):
        rows = slice(start, start + 64)
        scores.add(ours[rows], floats[rows], labels[rows])
    found, whole = scores.row(), row_of("library", ours, floats, labels, 0.0)
    order = np.argsort(-ours, axis=1)[:, :5]
    assert (found.top1, found.top5) == (whole.top1, whole.top5)
    assert found.top1 == int((order[:, 0] == labels).sum())
    assert found.top5 == int((order == labels[:, None]).any(axis=1).sum())
    assert found.agreement == whole.agreement == (ours.argmax(1) == floats.argmax(1)).mean()
    assert found.mean_cosine == pytest.approx(whole.mean_cosine, rel=1e-12)
    noise = np.square(floats.astype(np.float64) - ours).sum()
    expected = 10 * np.log10(np.square(floats.astype(np.float64)).sum() / noise)
    assert found.sqnr_db == pytest.approx(expected, rel=1e-12)


def count_reference(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the reference runs, call by call."""
    seen: list[int] = []
    original = Compiled.reference

    def counted(self: Compiled) -> object:
        run = original(self)

        def reference(pixels: UInt8Array) -> IntArray:
            seen.append(len(pixels))
            return run(pixels)

        return reference

    monkeypatch.setattr(Compiled, "reference", counted)
    return seen


def test_what_verify_has_proven_is_not_computed_again(
    target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = count_reference(monkeypatch)
    with caplog.at_level(logging.INFO, "vitq"):
        rows = {row.name: row for row in evaluate(target, count=80)}
    assert seen == [SAMPLE] and rows["reference"].computed == SAMPLE
    assert "without a record of verify the reference runs on 32 pictures" in caplog.text
    verify(target, count=2)
    seen.clear()
    with caplog.at_level(logging.INFO, "vitq"):
        again = {row.name: row for row in evaluate(target, count=80)}
    assert seen == [PROVEN_SAMPLE] and again["reference"].computed == PROVEN_SAMPLE
    assert "verify found none of 170 integers different" in caplog.text
    seen.clear()
    every = {row.name: row for row in evaluate(target, count=80, backends=stage.BACKENDS)}
    assert sum(seen) == 80 and every["reference"].computed is None
    assert rows["onnxruntime"].images == again["onnxruntime"].images == FILE_SAMPLE
    assert every["onnxruntime"].images == 80
    for name, row in every.items():
        for other in () if name == "onnxruntime" else (rows[name], again[name]):
            fields = ("top1", "top5", "agreement", "mean_cosine", "sqnr_db")
            assert [getattr(row, f) for f in fields] == [getattr(other, f) for f in fields]
    assert every["library"].top1 == every["reference"].top1


def test_a_record_counts_for_its_own_files_only(target: Path) -> None:
    compiled = open_compiled(target)
    checks = [check.to_json() for check in verify(target, count=1)]
    assert proven_integers(compiled) == sum(check["values"] for check in checks) > 0
    record = json.loads((target / PROOF_NAME).read_text())
    for content in ("", "[]", "{}", json.dumps({**record, "checks": [3]})):
        (target / PROOF_NAME).write_text(content)
        assert proven_integers(compiled) == 0
    keep_proof(compiled, checks[:1])  # the golden pictures alone
    assert proven_integers(compiled) == 0
    for name in ("quantized.safetensors", f"{target.name}/golden.npz"):
        keep_proof(compiled, checks)
        path = target.parent / name
        path.write_bytes(path.read_bytes() + b" ")
        assert proven_integers(compiled) == 0


def test_other_integers_on_the_sample_are_an_error(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Compiled.reference

    def wrong(self: Compiled) -> object:
        run = original(self)
        return lambda pixels: run(pixels) + (np.arange(10) == 3)

    monkeypatch.setattr(Compiled, "reference", wrong)
    with pytest.raises(IntegersDifferError, match="8 of 80 integers differ from the reference on"):
        evaluate(target, count=8)


def test_labels_are_checked_before_anything_runs(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a backend was opened")

    monkeypatch.setattr(stage, "_backend", never)
    labels = np.arange(8) + 3
    with pytest.raises(VitqError, match="label of picture 7 is 10, but the model has 10 outputs"):
        evaluate(target, GivenPictures(calibration_images(8), labels))


def shifted(by: int, number: int = 40) -> GivenPictures:
    """The held-out digits with labels of another order."""
    pixels, labels = eval_images(number)
    return GivenPictures(np.array(pixels), (np.array(labels) + by) % 10, "shifted")


def test_shifted_labels_are_said(target: Path, caplog: pytest.LogCaptureFixture) -> None:
    backends = ("float", "library")
    with caplog.at_level(logging.WARNING, "vitq"):
        evaluate(target, shifted(0), backends=backends)
        assert caplog.text == ""
        evaluate(target, shifted(1), backends=backends)
    assert "shifted: 0 of 40 labels are right, which is chance" in caplog.text
    assert "would be right if every label were -1" in caplog.text and "--classes" in caplog.text


def test_doubts_need_enough_pictures_and_chance() -> None:
    scores = Scores("float")
    logits = np.eye(10, dtype=np.float32)[np.arange(200) % 10]
    scores.add(logits[:19], None, (np.arange(19) + 1) % 10)
    assert scores.label_doubts(10) is None
    scores.add(logits[19:], None, (np.arange(19, 200) + 1) % 10)
    doubt = scores.label_doubts(10)
    assert doubt is not None and "0 of 200" in doubt
    scores.add(logits, None, np.arange(200) % 10)
    assert scores.label_doubts(10) is None


def test_a_model_that_says_one_class_is_not_blamed_on_the_labels(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores, labels = Scores("float"), np.arange(40) % 10
    scores.add(np.eye(10, dtype=np.float32)[[3] * 39 + [4]], None, labels)
    assert scores.label_doubts(10) is None
    assert scores.one_answer() == "39 of 40 answers are class 3"
    same = Scores("float")
    same.add(np.eye(10, dtype=np.float32)[[3] * 40], None, np.array([3] * 30 + [4] * 10))
    assert same.one_answer() is None, "as the labels are"
    monkeypatch.setattr(
        float_side, "float_runner", lambda *rest: lambda x: np.eye(10)[[3] * len(x)]
    )
    with caplog.at_level(logging.WARNING, "vitq"):
        evaluate(target, count=40, backends=("float",))
    assert "40 of 40 answers are class 3, and the labels are several (float)" in caplog.text
    assert "look shifted" not in caplog.text


def test_a_record_that_cannot_be_written_is_only_said(
    target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (target / PROOF_NAME).mkdir()
    assert verify(target, count=1)
    assert f"{PROOF_NAME} is not written: Is a directory" in caplog.text


def test_changed_calibration_pictures_are_said(
    tmp_path: Path, compiled: Path, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "calib.npy"
    np.save(source, calibration_images(4))
    options = QuantizeOptions.parse(
        calib=str(source), calib_count=2, method="minmax", artifacts=tmp_path / "artifacts"
    )
    made = quantize(options)
    shutil.copy(artifact.onnx, made.onnx)
    opened = open_compiled(shutil.copytree(compiled, made.folder / "cpu"))
    caplog.clear()
    warn_of_changes(opened)
    assert caplog.text == ""
    np.save(source, calibration_images(5)[1:])
    warn_of_changes(opened)
    assert f"calibration pictures in {source} changed since {made.folder}" in caplog.text
    caplog.clear()
    source.unlink()
    warn_of_changes(opened)
    assert caplog.text == ""
    made.onnx.write_bytes(b"another")
    warn_of_changes(opened)
    assert "model.onnx was written again since" in caplog.text


def test_build_looks_at_labels_before_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a stage began")

    monkeypatch.setattr(building, "export", never)
    quantizing = QuantizeOptions(artifacts=tmp_path, method=get_method("minmax"), calib_count=4)
    labelled = tmp_path / "x.npy"
    np.save(labelled, calibration_images(8))
    np.save(tmp_path / "x-labels.npy", np.arange(8) + 3)
    folder = tmp_path / "pictures" / "ant"
    folder.mkdir(parents=True)
    (folder / "1.png").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for is_quantized in (False, True):
        if is_quantized:
            quantize(quantizing)
        else:
            monkeypatch.setattr("vitq.compiler.stages.held_out.hold_out", never)
        for source, message in (
            (tmp_path / "none", "no such folder"),
            (empty, "holds no pictures"),
            (labelled, "label of picture 7 is 10, but the model has 10 outputs"),
            (folder.parent, "has 1 class folders and the model 10 outputs"),
        ):
            with pytest.raises(VitqError, match=message):
                building.build(quantizing, CompileOptions(), str(source))
        monkeypatch.undo()
        monkeypatch.setattr(building, "export", never)


def test_other_pictures_of_the_same_name_are_said(
    target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, labels = tmp_path / "x.npy", tmp_path / "x-labels.npy"
    pixels, numbers = eval_images(8)
    said = f"WARNING: the pictures or labels in {path} changed since the last evaluate"

    def warned(count: int | None = None) -> bool:
        caplog.clear()
        evaluate(target, str(path), count, ("library",), keep=True)
        return said in caplog.text

    np.save(path, pixels)
    np.save(labels, np.array(numbers))
    assert not warned() and not warned(), "the same ones"
    np.save(path, np.array(pixels) ^ 1)
    assert warned() and not warned(), "other pixels, then the same again"
    np.save(labels, (np.array(numbers) + 1) % 10)
    assert warned(), "other labels"
    assert not warned(4), "fewer pictures are others by intent"
    record = json.loads((target / "evaluate.json").read_text())
    assert record["source"] == str(path) and len(record["content"]) == 64
    np.save(path, pixels)
    evaluate(target, str(path), 4, ("library",))
    assert json.loads((target / "evaluate.json").read_text()) == record, "kept only if asked for"


@pytest.mark.parametrize(("sample", "total"), [(64, 80), (64, 64), (64, 20), (3, 1000), (1, 200)])
def test_a_sample_is_spread_over_all_batches(sample: int, total: int) -> None:
    found = [
        start + spread(start, min(64, total - start), sample, total)
        for start in range(0, total, 64)
    ]
    taken = np.concatenate(found)
    assert len(taken) == len(set(taken)) == min(sample, total)
    assert np.ptp(np.diff([-1, *taken])) <= 1


def test_batches_without_a_picture_for_onnxruntime(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "CHUNK", 4)
    monkeypatch.setattr(stage, "FILE_SAMPLE", 2)
    rows = {row.name: row for row in evaluate(target, count=16)}
    assert rows["onnxruntime"].images == 2 and rows["library"].images == 16
