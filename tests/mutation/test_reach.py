"""Which tests are run for a mutant."""

import subprocess
import sys
from pathlib import Path

from tests.mutation.mutate import Mutant
from tests.mutation.reach import IMPORTED, Reach, place

MODULE = """
LIMIT = max(1, 2)


def made():
    return [x for x in (1, 2)]


KEPT = made()


def inner():
    return (lambda: LIMIT)()


class Two:
    def value(self):
        def two():
            return 2

        return two()
"""
TESTS = {"inner": "module.inner()", "two": "module.Two().value()", "none": "None"}
RECORD = """
import json, sys
from pathlib import Path

import pytest

from tests.mutation.reach import Recorder

recorder = Recorder(Path.cwd())
code = pytest.main(["-q", "-p", "no:cacheprovider", "."], plugins=[recorder])
Path("found.json").write_text(json.dumps(recorder.found()))
sys.exit(code)
"""


def test_places_are_spelled_as_mutants_do() -> None:
    assert place("a.py", "<module>") == "a.py module"
    assert place("a.py", "<lambda>") == "a.py module"
    assert place("a.py", "f.<locals>.g") == "a.py f.g"
    assert place("a.py", "f.<locals>.<listcomp>") == "a.py f"
    assert place("a.py", "C.f.<locals>.g.<locals>.<lambda>") == "a.py C.f.g"


def test_only_files_that_enter_a_function_are_run(tmp_path: Path) -> None:
    import json

    (tmp_path / "module.py").write_text(MODULE)
    for name, call in TESTS.items():
        text = f"import module\n\n\ndef test_it():\n    {call}\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    root = Path(__file__).parents[2]
    path = f"import sys; sys.path[:0] = [{str(root)!r}, {str(tmp_path)!r}]"
    subprocess.run([sys.executable, "-c", f"{path}\n{RECORD}"], cwd=tmp_path, check=True)
    entered, seconds = json.loads((tmp_path / "found.json").read_text())
    assert entered["module.py made"] == [IMPORTED]
    files = {name: str(tmp_path / f"test_{name}.py") for name in TESTS}
    assert set(seconds) == set(files.values())
    reached = Reach((entered, {files["two"]: 1.0, files["none"]: 2.0, files["inner"]: 3.0}))

    def run(where: str, *own: str) -> list[str]:
        tests = reached.tests(Mutant("module.py", where, "", ""), [files[name] for name in own])
        return [name for test in tests for name in files if files[name] == test]

    assert run("inner") == ["inner"]
    assert run("Two.value.two") == ["two"]
    assert run("Two.value", "none") == ["none", "two"]
    assert run("never") == []
    for where in ("module", "made", "Two"):
        assert run(where, "inner") == ["inner", "two", "none"]
