"""`targets`, `doctor` and `inspect`: what can be compiled for, with what, and what was."""

from pathlib import Path
from typing import Any

from vitq.api.compile import Library
from vitq.api.quantize import Quantized
from vitq.compiler.stages.doctor import Finding
from vitq.compiler.stages.doctor import doctor as doctor_stage
from vitq.compiler.stages.inspect import inspect as inspect_stage
from vitq.compiler.stages.targets import targets as targets_stage


def targets() -> dict[str, str]:
    """List what `compile` can compile for.

    Returns:
        Name -> description; ``cpu`` is this machine.

    Example:
        >>> sorted(vitq.targets())[:3]
        ['cpu', 'cuda', 'h200']
    """
    return targets_stage()


def doctor() -> list[Finding]:
    """Look at this machine: packages, compilers, emulators, a GPU, extras, free disk.

    Returns:
        One finding for each thing: what was looked for, what was found (None where it is missing)
        and what its lack costs.

    Example:
        >>> vitq.doctor()[0].what
        'python'
    """
    return doctor_stage()


def inspect(model: Quantized | Library | str | Path) -> dict[str, Any]:
    """Show what is in an artifact: I/O, operators, scales, sizes, float islands, provenance.

    Args:
        model: quantized, compiled, or the folder of an artifact or of a target in it.

    Returns:
        What ``vitq inspect --json`` prints: ``provenance``, ``quantizers``, ``layers``, ``export``,
        ``size_bytes`` and ``targets``.

    Raises:
        VitqError: no artifact there.

    Example:
        >>> vitq.inspect(lib)["targets"]["cpu"]["float_islands"]
        []
    """
    return inspect_stage(Path(model) if isinstance(model, str | Path) else model.folder)
