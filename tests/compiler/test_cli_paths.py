"""Paths that are not what a command takes: no folder stands for another one."""

from pathlib import Path

import pytest

from tests.compiler.test_cli import call
from vitq.compiler.stages.run import open_compiled
from vitq.compiler.support.artifacts import Artifact, open_artifact
from vitq.numerics.errors import VitqError

COMMANDS: dict[str, list[str]] = {
    "export": [],
    "compile": [],
    "tune": ["--trials", "1"],
    "verify": [],
    "evaluate": [],
    "benchmark": [],
    "run": ["--input", "x.npy", "--output", "y.npy"],
    "deploy": ["--out", "bundle"],
    "inspect": [],
    "kit": ["--out", "kit"],
}


@pytest.mark.parametrize("name", ["typo", "typo.onnx", "cpu/typo"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_path_that_does_not_exist_is_not_its_parent(
    command: str,
    name: str,
    artifact: Artifact,
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = artifact.folder / name
    assert call([command, str(path), *COMMANDS[command]], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vitq: {path} does not exist: give ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "compile"])
def test_a_file_is_not_its_folder(
    command: str,
    artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call([command, str(artifact.onnx), *COMMANDS[command]], monkeypatch) == 2
    assert f"{artifact.onnx} is a file: give " in capsys.readouterr().err


def test_what_is_there_is_named(artifact: Artifact, compiled: Path) -> None:
    with pytest.raises(VitqError, match=r"has .*\bcpu\b"):
        open_compiled(artifact.folder / "cpuu")


def test_the_folder_that_one_stands_in(
    artifact: Artifact, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compiled)
    for path in (Path("."), Path(".."), compiled):
        assert open_artifact(path).folder.resolve() == artifact.folder
    assert not open_compiled(Path(".")).is_foreign
