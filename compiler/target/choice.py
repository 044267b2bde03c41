"""From a name to an entry of the table of targets."""

import platform
from dataclasses import replace

from vitq.compiler.target.gpus import ARCHITECTURES
from vitq.compiler.target.host import fits_host
from vitq.compiler.target.table import CPU_TARGETS, TARGETS, Target
from vitq.numerics.errors import VitqError, nearest

NATIVE = "cpu"
ALIASES = {
    "rpi3": "arm64",
    "rpizero2": "arm64",
    "aarch64": "arm64",
    "armv8": "arm64",
    "rpi": "rpi5",
    "raspberrypi4": "rpi4",
    "raspberrypi5": "rpi5",
    "jetson": "jetson-orin",
    "orin": "jetson-orin",
    "graviton": "graviton3",
    "native": NATIVE,
    "host": NATIVE,
    "gpu": "cuda",
    "nvidia": "cuda",
    "hopper": "h200",
    "h100": "h200",
}
"""What people call a target (without separators) -> the entry that fits it; only for the hint."""


def target_names() -> list[str]:
    """All names that `get_target` takes."""
    return [NATIVE, *TARGETS]


def get_target(name: str, architectures: tuple[str, ...] | None = None) -> Target:
    """Look a target up.

    Args:
        name: an entry's name, or ``cpu`` for the best entry that this machine can run.
        architectures: of its GPU (``sm_75``, ...); None for the entry's own.

    Returns:
        The entry; for ``cpu``, with that name.

    Raises:
        VitqError: unknown name (the choices are listed), or no entry fits this machine.
    """
    if architectures is not None:
        return get_target(name).for_architectures(architectures)
    if name in TARGETS:
        return TARGETS[name]
    if name != NATIVE:
        raise VitqError(
            f"target {name!r} does not exist{_hint(name)}: choose {', '.join(target_names())}"
        )
    for target in CPU_TARGETS.values():
        if fits_host(target):
            return replace(target, name=NATIVE, stands_for=target.name)
    raise VitqError(f"no target in the table fits this machine ({platform.machine()})")


def _hint(name: str) -> str:
    """Name what may be meant: an alias's entry, the target of an architecture, a near spelling."""
    letters = "".join(c for c in name.lower() if c.isalnum())
    if letters in ALIASES:
        return f" ({ALIASES[letters]} fits it)"
    arch = nearest(name, ARCHITECTURES)
    if letters.startswith("sm") and arch:
        return f" (give --target cuda --arch{arch.removeprefix(' (did you mean').rstrip('?)')})"
    return nearest(name, target_names())
