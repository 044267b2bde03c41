"""This machine's processor, as the system describes it."""

import platform
from pathlib import Path

from vitq.compiler.target.table import Target


def host_flags() -> set[str]:
    """Processor flags of this machine, as far as the system tells, and its kind."""
    kind = {platform.machine()}
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return kind
    for line in path.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return kind | set(line.partition(":")[2].split())
    return kind


def missing_flags(target: Target, flags: set[str]) -> list[str]:
    """Flags that a target needs and a machine lacks."""
    return [flag for flag in target.needs if flag not in flags]


def host_cpu() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def fits_host(target: Target) -> bool:
    """Whether this machine's processor executes the target's code, its GPU's apart."""
    return platform.machine() in target.machine and not missing_flags(target, host_flags())
