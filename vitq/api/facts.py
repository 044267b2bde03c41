"""`targets`, `doctor`, `inspect`, `report`: what can be compiled for, with what, and what was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitq.api.library import Library
from vitq.api.quantize import Quantized
from vitq.compiler.stages.doctor import Finding
from vitq.compiler.stages.doctor import doctor as doctor_stage
from vitq.compiler.stages.inspect import inspect as inspect_stage
from vitq.compiler.stages.targets import targets as targets_stage
from vitq.compiler.studies.report import Entry
from vitq.compiler.studies.report import report as report_stage
from vitq.compiler.studies.report_page import write_report
from vitq.compiler.support.page import check_page


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


def report(
    models: Sequence[Quantized | Library | str | Path], *, html: str | Path | None = None
) -> list[Entry]:
    """Put several artifacts side by side: accuracy, size, time, widths, integers.

    Accuracy is what ``vitq evaluate`` found last, times are those of the last ``vitq benchmark``;
    both are kept beside the artifact, and count only while its files are the same.

    Args:
        models: quantized, compiled, or folders of artifacts or of targets in them.
        html: page to write, one file that needs no other.

    Returns:
        One entry for each library, and for each artifact without one: ``size_bytes``, ``widths``,
        ``integers`` (equal where the integers are), ``top1``, ``agreement``, ``times_ms`` and more.

    Raises:
        VitqError: no artifact there.

    Example:
        >>> [(entry.folder, entry.size_bytes) for entry in vitq.report(["out/", lib])]
    """
    out = None if html is None else Path(html)
    check_page("html", out)
    found = report_stage([Path(m) if isinstance(m, str | Path) else m.folder for m in models])
    if out is not None:
        write_report(found, out)
    return found
