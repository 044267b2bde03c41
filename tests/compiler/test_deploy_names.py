"""Bundles of what has a name beyond ASCII, relative paths, and what a wheel brings along."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.compiler.bundles import is_one_line, rewrite_manifest, run, write_manifest
from vitq.compiler.deploy.bundle import FLAVOURS, SOURCES, Bundle, DeployOptions
from vitq.compiler.stages.deploy import deploy
from vitq.numerics.arrays import UInt8Array

ROOT = Path(__file__).resolve().parents[2]
NAME = "modèle-視覚"
LABELS = ["zéro", "一", "二", "три", "😀", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def foreign(compiled: Path, tmp_path: Path) -> Path:
    """The compiled model under a name beyond ASCII, in a folder of that name."""
    folder = Path(shutil.copytree(compiled.parent, tmp_path / NAME / "w8a8")) / compiled.name
    path = folder / "metadata.json"
    content = json.loads(path.read_text())
    content["metadata_props"]["vitq.model"] = NAME
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_names_beyond_ascii(
    flavour: str, foreign: Path, digits_pixels: UInt8Array, tmp_path: Path
) -> None:
    labels = tmp_path / "étiquettes.txt"
    labels.write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    made = deploy(
        foreign,
        DeployOptions(out=tmp_path / f"paquet-視-{flavour}", flavour=flavour, labels=labels),
    )
    assert made.measured.verified == "here" and made.manifest["model"] == NAME
    assert NAME in run(made.folder, "info")[1]
    picture = tmp_path / "é.u8"
    digits_pixels[:1].tofile(picture)
    code, out, error = run(made.folder, "infer", str(picture), "--top", "10")
    assert code == 0, error
    assert sorted(line.split()[-1] for line in out.splitlines()[1:]) == sorted(LABELS)
    raw = json.dumps(json.loads((made.folder / "manifest.json").read_text()), ensure_ascii=False)
    write_manifest(made.folder, raw)  # the letters themselves instead of \u escapes
    assert run(made.folder, "verify")[0] == 0 and NAME in run(made.folder, "info")[1]


def test_half_a_letter_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles["static"].folder, tmp_path / "copy"))
    rewrite_manifest(folder, lambda content: content.update(model="PLACE"))
    text = (folder / "manifest.json").read_text()
    for name in (r'"\ud83d"', r'"\u00e"', r'"a\u0000b"'):
        write_manifest(folder, text.replace('"PLACE"', name))
        code, _, error = run(folder, "verify")
        assert code == 2 and is_one_line(error) and "manifest.json" in error


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program around the runner's reader and writer."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    sources = [str(Path(__file__).with_name("json_probe.cc")), str(SOURCES / "json.cc")]
    command = ["g++", "-std=c++17", "-O1", f"-I{SOURCES}", *sources, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


@pytest.mark.parametrize("text", ["plain", NAME, 'quote " and \\', "tab\tnewline\n", "😀\x01\x7f"])
def test_what_is_written_can_be_read(probe: Path, text: str) -> None:
    written = subprocess.run([probe, "write", text], capture_output=True, check=True).stdout
    assert json.loads(written) == text
    for form in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        read = subprocess.run([probe, "read", form], capture_output=True, check=True).stdout
        assert json.loads(read) == text


def test_bytes_that_are_no_utf8_do_not_spoil_the_json(probe: Path) -> None:
    given = b"caf\xe9"
    written = subprocess.run([probe, b"write", given], capture_output=True, check=True).stdout
    assert json.loads(written) == "caf?"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_relative_path(
    flavour: str, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = deploy(
        Path(os.path.relpath(compiled)), DeployOptions(out=Path("bundle"), flavour=flavour)
    )
    assert made.measured.verified == "here" and (tmp_path / "bundle" / "vitq-run").is_file()


def test_a_bundle_has_every_licence(bundles: dict[str, Bundle]) -> None:
    for made in bundles.values():
        folder = made.folder / "licenses"
        assert (folder / "vitq.LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
        assert "YaoYuan" in (folder / "yyjson.LICENSE").read_text()


def test_a_bundle_rebuilds_its_runner(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles["static"].folder, tmp_path / "copy"))
    readme = (folder / "README").read_text()
    command = next(line for line in readme.splitlines() if line.startswith("Build the runner"))
    (folder / "vitq-run").unlink()
    subprocess.run(command.partition(": ")[2], shell=True, cwd=folder / "src", check=True)
    assert run(folder, "info")[0] == 0


def test_a_wheel_has_what_deploy_takes(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "vitq", checkout / "vitq", ignore=shutil.ignore_patterns("*.pyc"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    inside = tmp_path / "site" / "vitq"
    assert (inside / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    runner = inside / "compiler" / "deploy" / "runner"
    taken = {path.relative_to(SOURCES) for path in SOURCES.rglob("*") if path.is_file()}
    assert taken == {path.relative_to(runner) for path in runner.rglob("*") if path.is_file()}
    use = "from pathlib import Path; from vitq.compiler.deploy import bundle as b; " + (
        f"b._write_licenses(Path({str(tmp_path)!r})); print(b.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", use],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(tmp_path))
    assert (tmp_path / "vitq.LICENSE").is_file() and (tmp_path / "yyjson.LICENSE").is_file()
