"""Where the logs of tuned kernels lie."""

from pathlib import Path

from vitq.compiler.support.artifacts import ROOT
from vitq.compiler.target.table import Target

LOGS = ROOT / "tuning_logs"
RECORDS = "database_tuning_record.json"
GPU_PREFIX = "cuda-"
"""Of the folders of GPUs' logs."""


def entry_name(target: Target) -> str:
    """The name in the table of targets, also of ``cpu``; of a GPU its newest architecture."""
    if target.gpu is not None:
        return GPU_PREFIX + target.gpu.newest
    return target.entry


def shipped_log(target: Target) -> Path:
    """The folder of the logs that come with this release."""
    return LOGS / entry_name(target)


def is_log(folder: Path) -> bool:
    """Whether there is anything to read."""
    return (folder / RECORDS).is_file()


def nearest_log(target: Target) -> Path | None:
    """Find the log of the GPU architecture that is nearest to the target's, if there is any.

    A schedule is valid on all GPUs, if not the best on each.
    """
    if target.gpu is None:
        return None
    prefix = f"{GPU_PREFIX}sm_"
    found = [folder for folder in LOGS.glob(f"{prefix}*") if is_log(folder)]
    wanted = int(target.gpu.newest.removeprefix("sm_"))

    def distance(folder: Path) -> int:
        return abs(int(folder.name.removeprefix(prefix)) - wanted)

    return min(found, key=distance, default=None)
