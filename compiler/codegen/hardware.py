"""Whether this machine executes a target's code: its processor, and its GPU where it needs one."""

from pathlib import Path

from vitq.compiler.nvidia.driver import why_not_here
from vitq.compiler.target.host import fits_host, host_flags, missing_flags
from vitq.compiler.target.table import Target
from vitq.numerics.errors import VitqError


def can_run_here(target: Target) -> bool:
    """Whether this machine executes the target's code."""
    return fits_host(target) and (target.gpu is None or why_not_here(target.gpu) is None)


def require_hardware(path: Path, target: Target) -> None:
    """Refuse a library whose code this machine cannot execute.

    Raises:
        VitqError: naming what is missing.
    """
    lacking = missing_flags(target, host_flags())
    if lacking:
        raise VitqError(
            f"{path} was compiled for {target.name}, but this processor lacks "
            f"{', '.join(lacking)}: compile for another target"
        )
    if target.gpu is not None:
        reason = why_not_here(target.gpu)
        if reason:
            raise VitqError(f"{path} was compiled for {target.name}, but {reason}")
