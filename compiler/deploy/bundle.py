"""A bundle: what a device runs a model with.

    bundle/
        vitq-run  model.so  golden_pixels.npy  golden_codes.npy  [labels.txt]  README
        vitq-serve    serves measurements over RPC      flavour vm
        lib/          TVM's runtime libraries           flavour vm
        python/       the same from Python, no TVM      flavour vm, GPUs
        vitq.h        the C interface of model.so       flavour static
        python/       the same from Python, no TVM      flavour static
        src/          sources of all that is built here
        licenses/     manifest.json, manifest.sha256 (written last)

Flavour ``vm`` takes the artifact's library; ``static`` compiles the same kernels once more,
with a static plan instead of the virtual machine. The runner checks every hash and the
processor before it loads anything.
"""

import logging
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.deploy.contents import (
    MANIFEST_NAME,
    write_golden,
    write_labels,
    write_manifest,
    write_readme,
)
from vitq.compiler.deploy.measure import Measured, check_and_measure
from vitq.compiler.support.artifacts import GOLDEN_NAME, LIBRARY_NAME, file_hash
from vitq.compiler.support.runtime_libs import runtime_files
from vitq.compiler.target.tools import Toolchain, toolchain
from vitq.numerics.errors import VitqError
from vitq.numerics.files import replaced_folder, require_writable

logger = logging.getLogger(__name__)

FLAVOURS = ("vm", "static")
RUNNER = "vitq-run"
SOURCES = Path(__file__).resolve().parent / "runner"
THIRD_PARTY = "third_party"
"""In `SOURCES`, a folder for each: unchanged, with its licence, compiled by one of our files."""
PYTHON_SOURCES = Path(__file__).resolve().parent.parent / "gpu_kit"
PYTHON_MODEL = "vitq_model.py"
PYTHON_RUNNER, PYTHON_FILES = "python/gpu_kit", ("__init__.py", "ffi.py", "model.py")
SERVER = "vitq-serve"
COMMON_SOURCES = (
    *("manifest.cc", "json.cc", "sha256.cc", "cpu.cc", "description.cc"),
    *("preprocessing.cc", "image.cc"),
)
PIXEL_SOURCES = ("vitq.h", "vitq_pixels.h", "vitq_pixels.c", "vitq_resize.h")
"""In C, for the static library, too; `preprocessing.cc` includes them."""
COMPILER_OPTIONS = ("-std=c++17", "-Iinclude")
SMALL = ("-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
"""A download for a device should not grow by its tools."""
RUNNER_SOURCES = (
    *("vitq_run.cc", "infer.cc", "pictures.cc", "npy.cc", "decode.cc", "jpeg.cc", "png.cc"),
    *("exif.cc", "segments.cc", "dense.cc", "write_png.cc"),
)
SERVER_SOURCES = (
    *("vitq_serve.cc", "greeting.cc", "session.cc", "timing.cc", "tracker.cc", "net.cc"),
)
FLAVOUR_SOURCES = {"vm": ("model_vm.cc", "runtime.cc"), "static": ("model_static.cc",)}


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What a bundle is to be.

    Attributes:
        out: its folder; an earlier bundle there is replaced.
        flavour: ``vm`` or ``static``.
        labels: text file with a class name on each line.
    """

    out: Path
    flavour: str = "vm"
    labels: Path | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown flavour."""
        if self.flavour not in FLAVOURS:
            raise VitqError(f"--flavour {self.flavour!r}: choose {' or '.join(FLAVOURS)}")


@dataclass(frozen=True)
class Bundle:
    """A finished bundle.

    Attributes:
        folder: where it lies.
        manifest: content of ``manifest.json``.
        size_bytes: of all files.
        measured: what the runner said, here or under an emulator.
        said: by the device that it was copied to, None if it was not.
    """

    folder: Path
    manifest: dict[str, Any]
    size_bytes: int
    measured: Measured
    said: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        about = {key: value for key, value in self.manifest.items() if key != "files"}
        known = {"folder": str(self.folder), "size_bytes": self.size_bytes}
        return known | self.measured.to_json() | about | {"device": self.said}


def write_bundle(folder: Path, options: DeployOptions) -> Bundle:
    """Write a bundle.

    Args:
        folder: the target's folder.
        options: flavour and where to.

    Returns:
        The bundle, verified where this machine or an emulator can run it.

    Raises:
        VitqError: nothing compiled, no compiler for the target, no runtime libraries, or the
            bundle computes other integers.
    """
    compiled = open_compiled(folder)
    compiled.require_current()
    if compiled.target.gpu is not None and options.flavour == "static":
        raise VitqError("--flavour static is for processors: a GPU needs --flavour vm")
    for name in (LIBRARY_NAME, GOLDEN_NAME):
        _require_own(compiled, name)
    _require_replaceable(options.out)
    require_writable(options.out)
    tools = toolchain(compiled.target)
    with replaced_folder(options.out) as build:
        memory = _fill(build, compiled, options, tools)
        manifest = write_manifest(build, compiled, options.flavour, tools.architecture, memory)
        measured = check_and_measure(build / RUNNER, compiled.target)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    logger.info("deploy: %s, %s flavour, %.2f MB", options.out, options.flavour, size / 1e6)
    return Bundle(options.out, manifest, size, measured)


def _require_own(compiled: Compiled, name: str) -> None:
    path = compiled.folder / name
    if not path.is_file() or file_hash(path) != compiled.metadata["sha256"][name]:
        raise VitqError(f"{path} is not the file that compile wrote: compile again")


def _fill(
    build: Path, compiled: Compiled, options: DeployOptions, tools: Toolchain
) -> dict[str, int]:
    """Write everything but the manifest; returns what is known of the memory."""
    for folder in ("src", "licenses"):
        (build / folder).mkdir()
    _write_licenses(build / "licenses")
    write_golden(build, compiled)
    write_labels(build, compiled, options.labels)
    if options.flavour == "static":
        from vitq.compiler.deploy.static_library import build_static_library

        memory = build_static_library(build, compiled, tools)
        (build / "python").mkdir()
        shutil.copy(Path(__file__).with_name(PYTHON_MODEL), build / "python")
    else:
        memory = _add_machine(build, compiled, tools)
    command = _build_programs(build, options.flavour, tools)
    write_readme(build, compiled, options.flavour, tools.architecture, command)
    return memory


def _write_licenses(folder: Path) -> None:
    """Return the project's licence, which its package has, and those of the sources of others."""
    (folder / "vitq.LICENSE").write_bytes((files("vitq") / "LICENSE").read_bytes())
    for path in (SOURCES / THIRD_PARTY).iterdir():
        shutil.copy(path / "LICENSE", folder / f"{path.name}.LICENSE")


def _build_programs(build: Path, flavour: str, tools: Toolchain) -> str:
    """Build the runner, and the virtual machine's server; returns the runner's command."""
    flavoured = FLAVOUR_SOURCES[flavour]
    programs = {RUNNER: [*RUNNER_SOURCES, *flavoured]}
    if flavour == "vm":
        programs[SERVER] = [*SERVER_SOURCES, "runtime.cc"]
    wanted = {*COMMON_SOURCES, *(name for sources in programs.values() for name in sources)}
    pixel_sources = [SOURCES / name for name in PIXEL_SOURCES]
    for path in [*_sources(wanted), *pixel_sources]:
        if not (build / "src" / path.name).exists():  # the static library's vitq.h is its own
            shutil.copy(path, build / "src")
    shutil.copytree(SOURCES / THIRD_PARTY, build / "src" / THIRD_PARTY)
    options = [*SMALL, *COMPILER_OPTIONS]
    tools.build([*options, "-c", *COMMON_SOURCES], build / "src", "building the runner")
    objects = [f"{Path(name).stem}.o" for name in COMMON_SOURCES]
    for name, sources in programs.items():
        arguments = [*options, *sources, *objects, "-o", f"../{name}", "-ldl"]
        tools.build(arguments, build / "src", f"building {name}")
    for name in objects:
        (build / "src" / name).unlink()
    sources = [*programs[RUNNER], *COMMON_SOURCES]
    return (
        f"c++ -O2 -ffp-contract=off {' '.join([*COMPILER_OPTIONS, *sources])} -o ../{RUNNER} -ldl"
    )


def _sources(wanted: set[str]) -> list[Path]:
    """Files with these names, and the headers that belong to them or to no file."""
    present = {path.name for path in SOURCES.iterdir()}
    headers = {
        path.name
        for path in SOURCES.glob("*.h")
        if not path.name.startswith("vitq")
        and (f"{path.stem}.cc" in wanted or f"{path.stem}.cc" not in present)
    }
    return [SOURCES / name for name in sorted(wanted | headers)]


def _add_machine(build: Path, compiled: Compiled, tools: Toolchain) -> dict[str, int]:
    """Return the artifact's library without debug information, and TVM's."""
    shutil.copy(compiled.folder / LIBRARY_NAME, build / LIBRARY_NAME)
    tools.strip(build / LIBRARY_NAME)
    cuda = compiled.target.gpu is not None
    for name, path in runtime_files(tools.architecture, cuda).items():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, build / name)
    if cuda:
        (build / PYTHON_RUNNER).mkdir(parents=True)
        for name in PYTHON_FILES:
            shutil.copy(PYTHON_SOURCES / name, build / PYTHON_RUNNER)
    return {}


def _require_replaceable(out: Path) -> None:
    """Only a bundle may be overwritten."""
    if (
        out.exists()
        and not (out / MANIFEST_NAME).is_file()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise VitqError(f"{out} exists and is no bundle: give another --out")
