"""A factory's artifact is up to date only as long as every file that made the model is."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitq.compiler.stages.quantize import quantize, quantize_fingerprint
from vitq.compiler.stages.quantize_options import QuantizeOptions

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


def test_the_script_finds_the_current_folder_and_needs_no_torch_to_see_no_change(
    options: QuantizeOptions,
) -> None:
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p] + [{str(ROOT)!r}]\n"
        "from vitq.compiler.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in ('torch', 'vitq_user') if m in sys.modules])"
    )
    given = ["quantize", "--model", options.model, "--random-weights", "0", "--calib", "noise"]
    given += ["--calib-count", "2", "--method", "minmax", "--artifacts", str(options.artifacts)]
    for expected in ("['torch', 'vitq_user']", "[]"):
        command = [sys.executable, "-P", "-c", code, *given]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines()[-1] == expected
