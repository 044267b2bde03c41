"""Stage ``doctor``: what this machine has for vitq, and what each lack costs."""

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vitq.compiler.nvidia import nvrtc
from vitq.compiler.nvidia.driver import capability, why_no_gpu
from vitq.compiler.nvidia.places import find_tool
from vitq.compiler.nvidia.toolchain import HOW
from vitq.compiler.support.extras import installed
from vitq.compiler.support.folders import cache_folder, data_folder, is_checkout
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.host import host_cpu
from vitq.compiler.target.qemu import why_not
from vitq.compiler.target.table import CPU_TARGETS, Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.errors import VitqError

PACKAGES = ("apache-tvm", "onnx", "onnxruntime", "torch", "timm", "numpy")
EXTRAS = {
    "xgboost": ("tune", "vitq tune searches at random, without a cost model"),
    "tornado": ("remote", "no TVM tracker: vitq tune|verify|benchmark --tracker is refused"),
    "matplotlib": ("benchmark", "no --plot and no --roofline"),
    "openvino": ("benchmark", "vitq benchmark leaves OpenVINO out"),
    "nncf": ("benchmark", "vitq benchmark leaves OpenVINO's int8 model out"),
}
"""Package of an optional extra: the extra, and what is missed without it."""
FREE_BYTES = 2 * 10**9
"""An artifact of a base model with a few targets, and the caches beside it."""
GIGA = 10**9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: its name.
        found: version, path or kind; None where it is missing.
        lack: what is missed without it and how to get it; empty where it is found.
    """

    what: str
    found: str | None
    lack: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def doctor() -> list[Finding]:
    """Look at this machine: packages, compilers, emulators, a GPU, extras, free disk.

    Nothing is installed, fetched or written.

    Returns:
        One finding for each thing, the needed ones first.
    """
    return [*_needed(), *_targets(), *_gpu(), *_extras(), *_places()]


def _needed() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    for package in PACKAGES:
        found = installed(package)
        yield Finding(package, found, "" if found else "needed: pip install vitq")


def _targets() -> Iterator[Finding]:
    """Find the native target, and for each processor of the table what links and emulates."""
    try:
        own = get_target("cpu")
        yield Finding("target cpu", f"{own.stands_for} on {host_cpu()}", _why_not_linked(own))
    except VitqError as error:
        yield Finding("target cpu", None, str(error))
    by_lack: dict[str, list[str]] = {}
    for target in CPU_TARGETS.values():
        lack = _why_not_linked(target)
        emulated = why_not(target) if target.emulation is not None and not lack else None
        said = lack or (f"compiles, but is not tried here: {emulated}" if emulated else "")
        by_lack.setdefault(said, []).append(target.name)
    for lack, names in by_lack.items():
        yield Finding(f"targets {', '.join(names)}", None if lack else "can be compiled", lack)


def _why_not_linked(target: Target) -> str:
    try:
        find_compiler(target)
    except VitqError as error:
        return str(error)
    return ""


def _gpu() -> Iterator[Finding]:
    nvcc = find_tool("nvcc")
    compiler = str(nvcc) if nvcc else nvrtc.version()
    lack = "" if compiler else f"no CUDA targets: {HOW}"
    yield Finding("CUDA compiler", compiler, lack)
    why = why_no_gpu()
    lack = f"{why}: CUDA libraries are compiled here and checked with verify --emulate, not run"
    yield Finding("NVIDIA GPU", None if why else f"sm_{capability()}", lack if why else "")


def _extras() -> Iterator[Finding]:
    for package, (extra, lack) in EXTRAS.items():
        found = installed(package)
        yield Finding(package, found, "" if found else f"{lack}: pip install 'vitq[{extra}]'")
    for tool, lack in (
        ("ssh", "vitq deploy --to is refused"),
        ("strip", "vitq deploy --flavour vm makes larger bundles"),
    ):
        path = shutil.which(tool)
        yield Finding(tool, path, "" if path else lack)


def _places() -> Iterator[Finding]:
    """Folders that are written to, and how much there is room for."""
    for what, folder in (("cache", cache_folder()), ("data", data_folder())):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        lack = "" if free > FREE_BYTES else f"less than {FREE_BYTES / GIGA:.0f} GB free: make room"
        yield Finding(f"{what} folder", f"{folder}, {free / GIGA:.1f} GB free", lack)
    kind = "a checkout: tune writes to tuning_logs" if is_checkout() else "an installed package"
    yield Finding("vitq", f"{installed('vitq')}, {kind}")
