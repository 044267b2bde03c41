"""`deploy`: a folder with which a device runs the model, without Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitq.api.library import Library
from vitq.api.workspace import Workspace
from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.stages.deploy import deploy as stage
from vitq.numerics.errors import VitqError

if TYPE_CHECKING:
    from vitq.compiler.deploy.bundle import Bundle


def deploy(
    library: Library | str | Path,
    out: str | Path,
    *,
    flavour: Literal["vm", "static"] = "vm",
    labels: Sequence[str] | str | Path | None = None,
    to: str | None = None,
) -> "Bundle":
    """Put a bundle together with which a device runs the model, without Python.

    Args:
        library: compiled for the device, or the folder of its target.
        out: folder of the bundle; an earlier one is replaced.
        flavour: ``vm`` (TVM's virtual machine, a server for measurements) or ``static`` (plain C
            without TVM; for processors).
        labels: names of the classes, or a file with one on each line.
        to: ``user@host[:folder]`` to copy it to and verify it on, over ssh.

    Returns:
        The bundle: ``folder``, ``manifest``, ``size_bytes``, ``measured``, and what the device
        ``said``. It was verified where this machine or an emulator runs it.

    Raises:
        VitqError: no compiler for the target, other files in `out`, labels that do not fit, or the
            bundle computes other integers.

    Example:
        >>> vitq.deploy(lib, "bundle/", flavour="static").measured.verified
        'here'
    """
    folder = library.folder if isinstance(library, Library) else Path(library)
    workspace = Workspace()
    if labels is not None and not isinstance(labels, str | Path):
        names = list(labels)
        if any(len(name.splitlines()) != 1 for name in names):
            raise VitqError("labels: each name is one line of text")
        labels = workspace.folder / "labels.txt"
        labels.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    file = None if labels is None else Path(labels)
    bundle = stage(folder, DeployOptions(out=Path(out), flavour=flavour, labels=file), to)
    del workspace  # alive until here
    return bundle
