"""Logs of GPUs serve others, too: a schedule is valid on all of them, if not the best on each."""

from pathlib import Path

from vitq.compiler.target.table import Target
from vitq.compiler.tuning import log


def nearest_log(target: Target) -> Path | None:
    """The log of the GPU architecture that is nearest to the target's, if there is any."""
    if target.gpu is None:
        return None
    prefix = f"{log.GPU_PREFIX}sm_"
    found = [folder for folder in log.LOGS.glob(f"{prefix}*") if log.is_log(folder)]
    wanted = int(target.gpu.newest.removeprefix("sm_"))

    def distance(folder: Path) -> int:
        return abs(int(folder.name.removeprefix(prefix)) - wanted)

    return min(found, key=distance, default=None)
