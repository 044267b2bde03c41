"""From a name to an entry of the table of targets."""

import platform
from dataclasses import replace

from vitq.compiler.target.host import fits_host
from vitq.compiler.target.table import CPU_TARGETS, TARGETS, Target
from vitq.numerics.errors import VitqError

NATIVE = "cpu"


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
        raise VitqError(f"target {name!r} does not exist: choose {', '.join(target_names())}")
    for target in CPU_TARGETS.values():
        if fits_host(target):
            return replace(target, name=NATIVE, stands_for=target.name)
    raise VitqError(f"no target in the table fits this machine ({platform.machine()})")
