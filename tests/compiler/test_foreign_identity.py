"""Files of one name from two places have two artifacts."""

from pathlib import Path

from vitq.compiler.stages.foreign import SOURCE_NAME, foreign_artifact
from vitq.compiler.support.artifacts import Artifact


def test_two_files_of_one_name(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    a, b = tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx"
    first = foreign_artifact(a, b"1", root)
    second = foreign_artifact(b, b"2", root)
    assert first.folder == root / "model" / "onnx"
    assert second.folder.parent.name.startswith("model-") and second.folder.parent.parent == root
    assert first.onnx.read_bytes() == b"1" and second.onnx.read_bytes() == b"2"


def test_each_finds_its_own_again_also_when_it_changed(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx"
    first, second = (foreign_artifact(path, b"1", tmp_path) for path in (a, b))
    assert foreign_artifact(b, b"3", tmp_path) == second
    assert foreign_artifact(a, b"4", tmp_path) == first
    assert first.onnx.read_bytes() == b"4" and second.onnx.read_bytes() == b"3"


def test_an_artifact_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    old = Artifact(tmp_path / "model" / "onnx")
    old.folder.mkdir(parents=True)
    old.onnx.write_bytes(b"1")
    assert foreign_artifact(tmp_path / "a" / "model.onnx", b"2", tmp_path) != old
    assert foreign_artifact(tmp_path / "b" / "model.onnx", b"1", tmp_path) == old
    (old.folder / SOURCE_NAME).write_text("damaged")
    assert foreign_artifact(tmp_path / "b" / "model.onnx", b"1", tmp_path) != old


def test_the_artifacts_own_file_stays_where_it_is(tmp_path: Path) -> None:
    artifact = foreign_artifact(tmp_path / "a" / "model.onnx", b"1", tmp_path)
    assert foreign_artifact(artifact.onnx, b"1", tmp_path) == artifact
