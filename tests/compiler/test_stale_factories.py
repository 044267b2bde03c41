"""A factory's artifact is up to date only as long as every file that made the model is."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from vitq.compiler.stages.float_reference import float_model
from vitq.compiler.stages.identity import quantize_fingerprint
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.numerics.errors import VitqError

ROOT = Path(__file__).resolve().parents[2]
MODEL = """\
import importlib
from vitq_depth import DEPTH

def build():
    hidden = importlib.import_module("vitq_hid" + "den")
    return hidden._vit(depth=DEPTH)
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuantizeOptions]:
    """Of a factory in the current folder, in three files, one of which no reader can see."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vitq_user.py").write_text(MODEL)
    (tmp_path / "vitq_depth.py").write_text("DEPTH = 1\n")
    hidden = Path(__file__).with_name("factories.py").read_text()
    (tmp_path / "vitq_hidden.py").write_text(hidden)
    before = set(sys.modules)
    yield QuantizeOptions.parse(
        model="vitq_user:build", random_weights=0, calib="noise", calib_count=2, method="minmax",
        artifacts=tmp_path / "out",
    )  # fmt: skip
    for name in set(sys.modules) - before:
        if name.startswith("vitq_"):
            del sys.modules[name]


def test_an_imported_file_is_in_the_fingerprint(options: QuantizeOptions) -> None:
    before = quantize_fingerprint(options)
    Path("vitq_other.py").write_text("")
    assert quantize_fingerprint(options) == before
    Path("vitq_depth.py").write_text("DEPTH = 2\n")
    assert quantize_fingerprint(options) != before


@pytest.mark.parametrize("name", ["vitq_user.py", "vitq_depth.py", "vitq_hidden.py"])
def test_a_changed_file_makes_the_artifact_stale(
    options: QuantizeOptions, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def is_unchanged() -> bool:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            quantize(options)
        return "quantize: unchanged" in caplog.text

    assert not is_unchanged() and is_unchanged()
    with Path(name).open("a") as file:
        file.write("# another model\n")
    assert not is_unchanged() and is_unchanged()


def run_quantize(*given: str) -> tuple[str, str]:
    """What the script says, and which of torch and the user's module it loaded."""
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p] + [{str(ROOT)!r}]\n"
        "from vitq.compiler.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in ('torch', 'vitq_user') if m in sys.modules])"
    )
    options = ["--calib", "noise", "--calib-count", "2", "--method", "minmax"]
    command = [sys.executable, "-P", "-c", code, "quantize", *given, *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stderr, found.stdout.splitlines()[-1]


def test_the_script_finds_the_current_folder(options: QuantizeOptions) -> None:
    given = ("--model", options.model, "--random-weights", "0", "--artifacts", "out")
    for is_unchanged in (False, True):
        said, loaded = run_quantize(*given)
        assert loaded == "['torch', 'vitq_user']"
        assert ("quantize: unchanged" in said) == is_unchanged


def test_no_torch_is_needed_to_see_that_a_named_model_is_unchanged(tmp_path: Path) -> None:
    given = ("--artifacts", str(tmp_path))
    assert run_quantize(*given)[1] == "['torch']"
    said, loaded = run_quantize(*given)
    assert loaded == "[]" and "quantize: unchanged" in said


def test_whatever_a_factory_reads_makes_the_artifact_stale(
    options: QuantizeOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of weights, and a variable: no source file says that they are read."""
    own = """\
import os, torch
from vitq_hidden import _vit

def build():
    model = _vit(depth=1)
    model.load_state_dict(torch.load("own.pth"))
    with torch.no_grad():
        model.head.bias += float(os.environ.get("VITQ_TEST_BIAS", 0))
    return model
"""
    Path("vitq_own.py").write_text(own)
    state = import_module("tests.compiler.factories")._vit(depth=1).state_dict()
    torch.save(state, "own.pth")
    mine = replace(options, model="vitq_own:build", random_weights=None)

    def is_unchanged() -> bool:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            quantize(mine)
        return "quantize: unchanged" in caplog.text

    assert not is_unchanged() and is_unchanged()
    state["head.bias"] += 1
    torch.save(state, "own.pth")
    assert not is_unchanged() and is_unchanged()
    monkeypatch.setenv("VITQ_TEST_BIAS", "2")
    assert not is_unchanged() and is_unchanged()
    folder = quantize(mine).folder
    float_model(folder)
    monkeypatch.setenv("VITQ_TEST_BIAS", "3")
    with pytest.raises(VitqError, match=r"vitq_own:build changed since quantize.*run quantize"):
        float_model(folder)
