"""A shared library that cannot be linked, or is none."""

from pathlib import Path

import pytest

from vitq.compiler.codegen import library as codegen
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError


class Executable:
    """Of TVM's, which a linker fails on."""

    def __init__(self, said: str) -> None:
        self._said = said

    def export_library(self, path: str, **options: object) -> None:
        """Fail as TVM fails."""
        raise RuntimeError(f"Compilation error:\nld: {self._said}\ncommand line")


def test_what_the_linker_says_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"b/model\.so cannot be linked: ld: cannot find: -lx"):
        codegen._link(Executable("cannot find: -lx"), tmp_path / "t", "g++", Path("b/model.so"))
    full = Executable("final link failed: No space left on device")
    with pytest.raises(OSError, match=r"No space left on device: 'b/model\.so'"):
        codegen._link(full, tmp_path / "t", "g++", Path("b/model.so"))


def test_a_library_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.so"
    monkeypatch.setattr(codegen, "require_hardware", lambda *arguments: None)
    with pytest.raises(VitqError, match=r"model\.so does not exist: run compile first"):
        codegen.Library(path, (1, 3, 8, 8), get_target("cpu"))
    path.write_bytes(b"text")
    with pytest.raises(VitqError, match=r"model\.so cannot be loaded: compile it again \("):
        codegen.Library(path, (1, 3, 8, 8), get_target("cpu"))
