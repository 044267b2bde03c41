"""The table of targets. Nothing outside this file and the kernels knows what is compiled for.

A target is data: what TVM's code generator is told, which kernel primitives may be used, and which
processor flags a machine must have to run the result. ``cpu`` is the best level that this machine
has.
"""

import platform
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compiler.features import CpuFeatures
from numerics.errors import VitqError


@dataclass(frozen=True)
class Target:
    """One entry of the table.

    Attributes:
        name: as on the command line.
        description: for a person.
        machine: ``platform.machine()`` values that it runs on.
        config: TVM's target dictionary.
        features: what the kernels may use.
        needs: processor flags (as in /proc/cpuinfo) that the code requires.
        compilers: C++ compilers that link for it, the first one found is used.
    """

    name: str
    description: str
    machine: tuple[str, ...]
    config: tuple[tuple[str, Any], ...]
    features: CpuFeatures
    needs: tuple[str, ...] = ()
    compilers: tuple[str, ...] = ("g++", "clang++", "c++")

    def tvm_config(self) -> dict[str, Any]:
        """The dictionary that ``tvm.target.Target`` takes."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in self.config}


X86 = ("x86_64", "AMD64")
AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")
AVX2 = ("avx2", "fma", "bmi2")

_ENTRIES = (
    Target(
        "x86-vnni",
        "x86-64 with AVX-512 and VNNI (Cascade Lake, Ice Lake, Zen 4 and later)",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "cascadelake")),
        CpuFeatures("vnni512", 512),
        AVX512,
    ),
    Target(
        "x86-avx2",
        "x86-64 with AVX2 (Haswell, Zen and later)",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "haswell")),
        CpuFeatures("generic", 256),
        AVX2,
    ),
    Target(
        "x86-64",
        "any x86-64",
        X86,
        (("kind", "llvm"), ("mtriple", "x86_64-linux-gnu"), ("mcpu", "x86-64")),
        CpuFeatures("generic", 128),
    ),
)
TARGETS = {target.name: target for target in _ENTRIES}
NATIVE = "cpu"


def target_names() -> list[str]:
    """All names that `get_target` takes."""
    return [NATIVE, *TARGETS]


def get_target(name: str) -> Target:
    """Look a target up.

    Args:
        name: an entry's name, or ``cpu`` for the best entry that this machine can run.

    Returns:
        The entry; for ``cpu``, with that name.

    Raises:
        VitqError: unknown name (the choices are listed), or no entry fits this machine.
    """
    if name in TARGETS:
        return TARGETS[name]
    if name != NATIVE:
        raise VitqError(f"target {name!r} does not exist: choose {', '.join(target_names())}")
    flags = host_flags()
    for target in _ENTRIES:
        if platform.machine() in target.machine and not missing_flags(target, flags):
            return replace(target, name=NATIVE)
    raise VitqError(f"no target in the table fits this machine ({platform.machine()})")


def host_flags() -> set[str]:
    """Processor flags of this machine; empty where the system does not tell."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return set()
    for line in path.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def missing_flags(target: Target, flags: set[str]) -> list[str]:
    """Flags that a target needs and a machine lacks."""
    return [flag for flag in target.needs if flag not in flags]


def find_compiler(target: Target) -> str:
    """The C++ compiler that links the library.

    Raises:
        VitqError: if none is installed.
    """
    for name in target.compilers:
        path = shutil.which(name)
        if path:
            return path
    raise VitqError(
        f"target {target.name} needs a C++ compiler to link ({', '.join(target.compilers)}): "
        "install one, on Debian with: apt-get install g++"
    )
