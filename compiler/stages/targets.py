"""Stage ``targets``: what can be compiled for."""

from vitq.compiler.target.choice import get_target
from vitq.compiler.target.table import TARGETS


def targets() -> dict[str, str]:
    """List the targets.

    Returns:
        Name -> description; ``cpu``, this machine, comes first.
    """
    native = {"cpu": f"this machine: {get_target('cpu').description}"}
    return native | {target.name: target.description for target in TARGETS.values()}
