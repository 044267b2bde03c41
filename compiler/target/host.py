"""This machine's processor, as the system describes it."""

import functools
import platform
from pathlib import Path

from vitq.compiler.target.table import Target


@functools.cache
def processor() -> dict[str, str]:
    """Read what the system says of the first processor; empty where it says nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    first = lines[: lines.index("")] if "" in lines else lines
    return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in first)}


def host_flags() -> set[str]:
    """Processor flags of this machine, as far as the system tells, and its kind."""
    flags = processor().get("flags") or processor().get("Features", "")
    return {platform.machine(), *flags.split()}


def missing_flags(target: Target, flags: set[str]) -> list[str]:
    """List the flags that a target needs and a machine lacks."""
    return [flag for flag in target.needs if flag not in flags]


def host_cpu() -> str:
    """Return the processor's name."""
    return processor().get("model name") or platform.machine()


def fits_host(target: Target) -> bool:
    """Whether this machine's processor executes the target's code, its GPU's apart."""
    return platform.machine() in target.machine and not missing_flags(target, host_flags())
