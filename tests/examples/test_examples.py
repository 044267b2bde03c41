"""Each example runs as it is written, in an empty folder."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def right(text: str, name: str) -> float:
    """Share of correct answers that an example printed."""
    found = re.search(rf"^{name}: (\d+) of (\d+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]) / int(found[2])


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an example as a program; returns what it printed."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_quickstart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("quickstart.py", capsys)
    assert right(text, "library") == right(text, "reference") > 0.95
    assert "int16" in text and (here / "out" / "cpu-b8" / "model.so").is_file()
    assert [path.name for path in here.iterdir()] == ["out"]


def test_own_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("own_module.py", capsys)
    assert right(text, "library") > 0.8
    assert float(re.findall(r"choice: ([\d.]+) %", text)[0]) > 95
    assert not list(here.iterdir())


def test_foreign_qdq(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    text = run("foreign_qdq.py", capsys)
    assert right(text, "library") > 0.95
    assert "float operators left: 0" in text and "of the interpreter" in text
    assert not list(here.iterdir())


def test_compare_methods(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("compare_methods.py", capsys)
    rows = re.findall(r"^(\S+ \S+): (\d+), ([\d.]+) dB$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == [
        "w8a8 minmax", "w8a8 repq", "w4a8 minmax", "w4a8 repq",
    ]  # fmt: skip
    noise = {name: float(db) for name, _, db in rows}
    assert noise["w8a8 repq"] > noise["w4a8 repq"] > 0 and not list(here.iterdir())


def test_c_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("c_program/bundle.py", capsys)
    for name in ("Makefile", "classify.c"):
        shutil.copy(EXAMPLES / "c_program" / name, here)
    subprocess.run(["make", "--silent", "CFLAGS=-std=c99 -Wall -Wextra -Werror"], check=True)
    done = subprocess.run(["./classify", "digit.raw"], capture_output=True, text=True, check=True)
    digit = re.findall(r"digit.raw is a (\d)", text)[0]
    assert done.stdout.startswith(f"class {digit}, logit ")
    bad = subprocess.run(["./classify", "nowhere"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr) == (1, "classify: cannot read the picture\n")


def test_the_notebook(here: Path) -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) > 5 and not any(cell.get("outputs") for cell in cells)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for index, source in enumerate(sources):
        exec(compile(source, f"cell {index}", "exec"), namespace)
    rows = namespace["rows"]
    assert rows["library"].top1 >= 95 and (here / "out").is_dir()  # type: ignore[index]


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.*")), ids=lambda path: path.name)
def test_no_path_of_a_machine_is_in_an_example(path: Path) -> None:
    assert not re.search(r"/(home|work|tmp|root|Users)/", path.read_text())
