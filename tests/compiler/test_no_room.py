"""No room, no right to write: each command that writes says so in one line, and leaves nothing."""

import errno
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.foreign.graphs import plain
from tests.compiler.test_cli import call
from vitq.compiler.deploy import contents
from vitq.compiler.support.artifacts import Artifact
from vitq.models.digits_vit.data import eval_images

NOWHERE = "/proc/vitq"
"""Takes no files, not even from root, to whom a read-only folder is no obstacle."""
SHORT = ["--calib-count", "2", "--method", "minmax"]
WRITING = {
    "quantize": ["quantize", *SHORT, "--artifacts", NOWHERE],
    "images": ["quantize", *SHORT, "--artifacts", "HERE", "--save-images", NOWHERE],
    "build": ["build", *SHORT, "--artifacts", NOWHERE],
    "sensitivity": ["sensitivity", *SHORT, "--widths", "4", "--artifacts", NOWHERE],
    "comparison": ["compare-methods", *SHORT, "--count", "4", "--artifacts", NOWHERE],
    "foreign": ["compile", "FOREIGN", "--mean", ".5", "--std", ".5", "--artifacts", NOWHERE],
    "zoo": ["zoo", "digits_vit", "--method", "minmax", "--artifacts", NOWHERE],
    "dump": ["compile", "COMPILED", "--batch", "2", "--debug-dump", NOWHERE],
    "tune": ["tune", "COMPILED", "--trials", "1", "--log", NOWHERE],
    "run": ["run", "COMPILED", "PIXELS", "--output", f"{NOWHERE}/y.npy"],
    "deploy": ["deploy", "COMPILED", "--out", f"{NOWHERE}/bundle"],
    "kit": ["kit", "COMPILED", "--out", f"{NOWHERE}/kit"],
    "explain": ["explain", "COMPILED", "--html", "/proc/e.html"],
    "wider": ["explain", "COMPILED", "--wider", f"{NOWHERE}/r.json"],
    "report": ["report", "COMPILED", "--html", "/proc/r.html"],
    "plot": ["benchmark", "COMPILED", "--plot", f"{NOWHERE}.png"],
    "roofline": ["benchmark", "COMPILED", "--profile", "--roofline", f"{NOWHERE}.png"],
}
BRIEF = ["--contestants", "vitq-int8-tuned", "--rounds", "1"]
FULL = {
    "quantize": ["quantize", *SHORT, "--artifacts", "HERE/art"],
    "images": ["quantize", *SHORT, "--artifacts", "ART", "--save-images", "HERE/images"],
    "export": ["export", "QUANTIZED"],
    "run": ["run", "COMPILED", "PIXELS", "--output", "HERE/y.npy"],
    "report": ["report", "COMPILED", "--html", "HERE/r.html"],
    "foreign": ["compile", "FOREIGN", "--mean", ".5", "--std", ".5", "--artifacts", "HERE/art"],
    "explain": ["explain", "COMPILED", "--count", "2", "--removals", "0", "--html", "HERE/e.html"],
    "plot": ["benchmark", "COMPILED", *BRIEF, "--plot", "HERE/b.png"],
    "roofline": ["benchmark", "COMPILED", *BRIEF, "--roofline", "HERE/r.png"],
    "widths": [
        *("sensitivity", *SHORT, "--widths", "4", "--artifacts", "ART", "--plot", "HERE/s.svg")
    ],
    "methods": [
        *("compare-methods", *SHORT, "--count", "4", "--artifacts", "ART", "--plot", "HERE/c.pdf")
    ],
}
SHOWN = ("explain", "plot", "roofline", "widths", "methods", "report")
"""Commands that measure first: their answer is there although its picture is not."""
Fill = Callable[[list[str]], list[str]]


@pytest.fixture
def fill(artifact: Artifact, compiled: Path, tmp_path: Path) -> Fill:
    """Puts paths in the place of their names."""
    (tmp_path / "here").mkdir()
    quantized = tmp_path / "here" / "quantized"
    quantized.mkdir()
    for name in ("quantize.json", "quantized.safetensors"):
        shutil.copy(artifact.folder / name, quantized)
    np.save(tmp_path / "x.npy", eval_images(2)[0])
    plain(tmp_path / "foreign.onnx")
    places = {
        "COMPILED": compiled, "PIXELS": tmp_path / "x.npy", "QUANTIZED": quantized,
        "FOREIGN": tmp_path / "foreign.onnx", "HERE": tmp_path / "here", "ART": tmp_path / "art",
    }  # fmt: skip

    def filled(arguments: list[str]) -> list[str]:
        for name, place in places.items():
            arguments = [argument.replace(name, str(place)) for argument in arguments]
        return arguments

    return filled


def fill_up(folder: Path, monkeypatch: pytest.MonkeyPatch, takes: int = 0) -> None:
    """Let the disk be full where `folder` lies, behind as many files as it still takes."""
    replace, left = os.replace, [takes]

    def no_room(source: Path, place: Path) -> None:
        if folder in Path(place).parents:
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
        replace(source, place)

    monkeypatch.setattr(os, "replace", no_room)


def one_line(error: str) -> str:
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("vitq:")]
    assert len(lines) == 1 and error.splitlines()[-1] == lines[0], error
    return lines[0]


@pytest.mark.parametrize("name", WRITING)
def test_a_place_that_takes_nothing_is_said_at_the_door(
    name: str, fill: Fill, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ("plot", "roofline") and not find_spec("matplotlib"):
        pytest.skip("no matplotlib")
    monkeypatch.setattr(os, "replace", lambda *given: pytest.fail("it began to write"))
    assert call(fill(WRITING[name]), monkeypatch) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith("vitq: /proc: Operation not permitted: give a path that you may use")


@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_fills_up_leaves_nothing(
    name: str,
    fill: Fill,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if {"--plot", "--roofline"} & set(FULL[name]) and not find_spec("matplotlib"):
        pytest.skip("no matplotlib")
    here = tmp_path / "here"
    fill_up(here, monkeypatch)
    arguments = fill(FULL[name])
    before = [path for path in here.rglob("*") if path.is_file()]
    assert call(arguments, monkeypatch) == 2
    captured = capsys.readouterr()
    line = one_line(captured.err)
    assert str(here) in line
    assert bool(captured.out) is (name in SHOWN)
    assert "No space left on device: free some space, or write elsewhere" in line
    assert [path for path in here.rglob("*") if path.is_file()] == before


def test_pictures_that_do_not_fit_leave_none_of_them(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_up(tmp_path / "here" / "images", monkeypatch, takes=1)
    assert call(fill(FULL["images"]), monkeypatch) == 2
    assert "No space left on device" in one_line(capsys.readouterr().err)
    assert list((tmp_path / "here" / "images").iterdir()) == []


def test_a_bundle_that_does_not_fit_leaves_the_earlier_one(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    out = tmp_path / "here" / "bundle"
    out.mkdir()
    (out / "manifest.json").touch()
    monkeypatch.setattr(contents, "write_json", no_room)
    arguments = ["deploy", "COMPILED", "--flavour", "static", "--out", str(out)]
    assert call(fill(arguments), monkeypatch) == 2
    assert "No space left on device" in one_line(capsys.readouterr().err)
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["bundle", "quantized"]
