"""What is installed: one name, which works from any folder and is not written to."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is unpacked."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "project"
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source)]
    if not (ROOT / ".git").exists() or subprocess.run(clone, check=False).returncode:
        pytest.skip("no git, or no repository: the wheel is built from a clone of it")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("vitq-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


@pytest.fixture(scope="module")
def call(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The installed command line, in a folder of its own with a user's own packages."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("models", "compiler", "export"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('the user has this name')\n")
    environment = os.environ | {"PYTHONPATH": str(site), "XDG_DATA_HOME": str(folder / "data")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_one_name_is_installed(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    (facts,) = [name for name in names if name.endswith(".dist-info")]
    assert names - {"bin"} == {"vitq", facts}
    assert (site / facts / "top_level.txt").read_text().split() == ["vitq"]
    assert not [path for path in site.rglob("*") if path.is_symlink()]


def test_every_module_is_in_the_wheel(site: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.c", "*.cc", "*.h", "*.json", "*.safetensors"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    folders = {path.name for path in (ROOT / "vitq").iterdir() if path.is_symlink()}
    wanted = {path for path in tracked if path.partition("/")[0] in folders}
    assert wanted
    assert not [path for path in wanted if not (site / "vitq" / path).is_file()]


def test_the_wheel_is_what_runs(call: Call, site: Path) -> None:
    done = call("-c", "import vitq, vitq.models.digits_vit as m; print(vitq.__file__, m.__file__)")
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(site) for path in done.stdout.split())


def test_from_a_model_to_bundles(call: Call, site: Path) -> None:
    before = {path for path in site.rglob("*") if "__pycache__" not in path.parts}
    built = call("-m", "vitq", "build", "--calib-count", "8", "--count", "8")
    assert built.returncode == 0, built.stderr
    folder = built.stdout.split()[-1]
    tuned = call("-m", "vitq", "tune", folder, "--trials", "5", "--json")
    assert tuned.returncode == 0, tuned.stderr
    assert "data" in Path(json.loads(tuned.stdout)["log"]).parts
    for flavour in ("static", "vm"):
        done = call("-m", "vitq", "deploy", folder, "--flavour", flavour, "--out", flavour)
        assert done.returncode == 0, done.stderr
    after = {path for path in site.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "the package was written to"


def test_the_public_api_is_typed_and_runs(call: Call, site: Path) -> None:
    assert (site / "vitq" / "py.typed").is_file()
    own = {path.name for path in (ROOT / "vitq" / "api").glob("*.py")}
    assert own == {path.name for path in (site / "vitq" / "api").glob("*.py")}
    done = call(str(ROOT / "examples" / "quickstart.py"))
    assert done.returncode == 0, done.stderr
    assert "library: 99 of 100" in done.stdout
