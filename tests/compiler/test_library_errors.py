"""A shared library that cannot be linked, or is none."""

from pathlib import Path

import pytest

from vitq.compiler.codegen import library as codegen
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError


def test_what_the_linker_says_is_one_line(tmp_path: Path) -> None:
    class Executable:
        """Of TVM's, on a full disk."""

        def export_library(self, path: str, **options: object) -> None:
            """Fail as a linker fails."""
            raise RuntimeError("Compilation error:\nld: cannot write: No space left\ncommand line")

    with pytest.raises(VitqError, match=r"model\.so cannot be linked: ld: cannot write: No space"):
        codegen._link(Executable(), tmp_path / "model.so", "g++")


def test_a_library_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.so"
    monkeypatch.setattr(codegen, "require_hardware", lambda *arguments: None)
    with pytest.raises(VitqError, match=r"model\.so does not exist: run compile first"):
        codegen.Library(path, (1, 3, 8, 8), get_target("cpu"))
    path.write_bytes(b"text")
    with pytest.raises(VitqError, match=r"model\.so cannot be loaded: compile it again \("):
        codegen.Library(path, (1, 3, 8, 8), get_target("cpu"))
