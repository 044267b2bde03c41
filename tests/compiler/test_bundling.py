"""Putting a bundle together: what is replaced, what is refused, what a failure leaves."""

import shutil
from pathlib import Path

import pytest

from vitq.compiler.deploy import bundle as bundling
from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.stages.deploy import deploy
from vitq.numerics.errors import VitqError


def test_only_a_bundle_is_replaced(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    with pytest.raises(VitqError, match="is no bundle"):
        deploy(compiled, DeployOptions(out=tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_a_failure_leaves_nothing(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise VitqError("the device is on fire")

    monkeypatch.setattr(bundling, "write_golden", fail)
    with pytest.raises(VitqError, match="on fire"):
        deploy(compiled, DeployOptions(out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_what_compile_did_not_write_is_refused(compiled: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(compiled.parent, tmp_path / "artifact")) / compiled.name
    (copy / "golden.npz").write_bytes(b"other")
    with pytest.raises(VitqError, match=r"golden\.npz is not the file that compile wrote"):
        deploy(copy, DeployOptions(out=tmp_path / "out"))
    with pytest.raises(VitqError, match="choose vm or static"):
        DeployOptions(out=tmp_path / "out", flavour="javascript")
    with pytest.raises(VitqError, match="no compiled library"):
        deploy(tmp_path, DeployOptions(out=tmp_path / "out"))
