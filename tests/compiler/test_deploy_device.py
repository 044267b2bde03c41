"""Bundles for other machines: under qemu, through ssh, with fetched runtime libraries."""

import json
import os
import platform
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.compiler.bundles import is_one_line, run
from vitq.compiler.cli import main as cli
from vitq.compiler.cli.deploy_report import bundle_rows
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.bundle import Bundle, DeployOptions
from vitq.compiler.deploy.device import send
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.support import runtime_libs
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.support.folders import cache_folder
from vitq.compiler.support.runtime_libs import LIBRARIES, runtime_files
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.qemu import EMULATOR, SYSTEM_ROOT, why_not
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.pixels import load_picture


def emulator(cpu: str) -> tuple[str, ...]:
    return (EMULATOR, "-L", str(SYSTEM_ROOT), "-cpu", cpu)


def need_emulation(name: str, flavour: str) -> None:
    missing = why_not(get_target(name))
    if missing:
        pytest.skip(missing)
    if flavour == "vm":
        try:
            runtime_files("aarch64")
        except VitqError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize(
    ("flavour", "target", "too_old"),
    [
        ("vm", "rpi5", "cortex-a72"),
        ("static", "rpi5", "cortex-a72"),
        ("static", "rpi4", None),
        ("vm", "graviton3", "cortex-a76"),
    ],
)
def test_arm(
    artifact: Artifact,
    digits_pixels: UInt8Array,
    tmp_path: Path,
    flavour: str,
    target: str,
    too_old: str | None,
) -> None:
    need_emulation(target, flavour)
    folder = compile_model(artifact.folder, CompileOptions(target=get_target(target)))
    made = deploy(folder, DeployOptions(out=tmp_path / "bundle", flavour=flavour))
    assert made.measured.verified == "emulated"
    assert made.measured.instructions and made.measured.instructions < 20e6
    assert made.manifest["architecture"] == "aarch64"

    np.save(tmp_path / "x.npy", digits_pixels[:3])
    picture = str(tmp_path / "x.npy")
    wanted = open_compiled(folder).reference()(digits_pixels[:3])
    for cpu in (get_target(target).emulation.cpu, "max"):  # type: ignore[union-attr]
        code, out, error = run(made.folder, "infer", picture, "--raw", before=emulator(cpu))
        assert code == 0, error
        found = [[int(word) for word in line.split()] for line in out.splitlines()]
        assert np.array_equal(found, wanted)
    check_picture(made.folder, folder, emulator("max"), tmp_path / "x.jpg")
    if too_old:
        code, _, error = run(made.folder, "verify", before=emulator(too_old))
        assert code == 3 and is_one_line(error)
        assert ("asimddp" if target == "rpi5" else "i8mm") in error


def check_picture(bundle: Path, folder: Path, before: tuple[str, ...], path: Path) -> None:
    """A JPEG gives the same integers on another processor: decoding and resizing are exact."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    Image.fromarray(pixels).resize((240, 150)).save(path, quality=80)
    compiled = open_compiled(folder)
    wanted = compiled.reference()(load_picture(path, compiled.preprocessing)[None])
    code, out, error = run(bundle, "infer", str(path), "--raw", before=before)
    assert code == 0, error
    assert np.array_equal([[int(word) for word in out.split()]], wanted)


FAKE_SSH = """#!/bin/sh
echo "ssh $*" >> "$LOG"
while [ "$1" = -o ]; do shift 2; done
shift
cd "$DEVICE" && exec sh -c "$*"
"""
FAKE_SCP = """#!/bin/sh
echo "scp $*" >> "$LOG"
for last; do :; done
folder="${last#*:}"
while [ "$#" -gt 1 ]; do
  case "$1" in
    -o) shift 2 ;;
    -*) shift ;;
    *) cp -r "$1" "$DEVICE/$folder" && shift ;;
  esac
done
"""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a device, behind programs that stand for ssh and scp."""
    programs, device = tmp_path / "programs", tmp_path / "device"
    programs.mkdir()
    device.mkdir()
    for name, text in (("ssh", FAKE_SSH), ("scp", FAKE_SCP)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DEVICE", str(device))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return device


@pytest.fixture
def bundle(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["static"].folder, tmp_path / "bundle"))


def test_a_bundle_is_copied_and_verified(bundle: Path, device: Path) -> None:
    assert "integers equal" in send(bundle, "pi@raspberrypi")
    assert (device / "vitq" / "vitq-run").is_file()
    assert "integers equal" in send(bundle, "pi@raspberrypi:models/digits")
    assert (device / "models" / "digits" / "licenses").is_dir()
    assert "BatchMode=yes" in (device.parent / "log").read_text()


def test_a_device_that_refuses_is_one_line(bundle: Path, device: Path) -> None:
    (bundle / "model.so").write_bytes(b"damaged")
    with pytest.raises(VitqError, match=r"verify on raspberrypi: .*model\.so is not the file"):
        send(bundle, "raspberrypi")


@pytest.mark.parametrize(
    "to", ["", "-oProxyCommand=x", "pi@host; rm", "pi@host:a b", "a@b@c", "h:-x"]
)
def test_a_destination_that_is_none(tmp_path: Path, to: str) -> None:
    with pytest.raises(VitqError, match="--to"):
        send(tmp_path, to)
    with pytest.raises(VitqError, match="a folder may not start with a dash"):
        send(tmp_path, "pi@raspberrypi:-x")


def test_no_ssh(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(VitqError, match="ssh cannot be started"):
        send(bundle, "pi@raspberrypi")


def test_the_table(bundles: dict[str, Bundle]) -> None:
    rows = {flavour: dict(bundle_rows(made)) for flavour, made in bundles.items()}
    assert "planned" in rows["static"]["memory"] and "memory" not in rows["vm"]
    assert all("whole process" in row["peak"] for row in rows.values())
    assert dict(bundle_rows(replace(bundles["vm"], said="fine")))["device"] == "fine"


def test_the_command(
    compiled: Path,
    device: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("of an earlier bundle, which is replaced")
    command = ["vitq", "deploy", str(compiled), "--out", str(out), "--flavour", "static"]
    monkeypatch.setattr(sys, "argv", [*command, "--to", "pi@raspberrypi", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["verified"] == "here" and found["flavour"] == "static"
    assert "integers equal" in found["device"]


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An architecture that is not this machine's, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return "aarch64" if platform.machine() != "aarch64" else "x86_64"


def test_libraries_that_cannot_be_fetched(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull if name == "PIP_CONFIG_FILE" else "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(VitqError, match=f"for {other} are not in .* --flavour static"):
        runtime_files(other)
    assert not any(cache_folder().iterdir())


def test_libraries_are_fetched_once_and_when_damaged(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def download(requirements: list[str], architecture: str, folder: Path) -> None:
        fetched.append((requirements, architecture))
        folder.mkdir()
        installed = runtime_libs._site_packages()
        for prefix, name in (("tvm/", "tvm.whl"), ("", "ffi.whl")):
            root = folder / name
            files = {*LIBRARIES.values(), *runtime_libs.LICENCES.values()}
            paths = [installed / file for file in files if file.startswith(prefix or "tvm_ffi/")]
            if not prefix:
                paths += installed.glob("apache_tvm_ffi-*.dist-info/licenses/*")
            with zipfile.ZipFile(root, "w") as archive:
                for path in paths:
                    archive.write(path, path.relative_to(installed))

    monkeypatch.setattr(runtime_libs, "_download", download)
    files = runtime_files(other)
    assert runtime_files(other) == files and len(fetched) == 1
    requirements, architecture = fetched[0]
    assert architecture == other
    assert [text.split("==")[0] for text in requirements] == ["apache-tvm", "apache-tvm-ffi"]
    library = files["lib/libtvm_runtime.so"]
    assert cache_folder() in library.parents
    library.write_bytes(b"damaged")
    runtime_files(other)
    assert len(fetched) == 2 and library.stat().st_size > 1 << 20
