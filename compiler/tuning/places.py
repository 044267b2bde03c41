"""Where the logs of tuned kernels lie."""

import logging
import shutil
from pathlib import Path

from vitq.compiler.support.folders import data_folder, is_checkout, resource
from vitq.compiler.target.table import Target

logger = logging.getLogger(__name__)

LOGS = resource("vitq", "tuning_logs")
RECORDS = "database_tuning_record.json"
GPU_PREFIX = "cuda-"
"""Of the folders of GPUs' logs."""


def entry_name(target: Target) -> str:
    """Name a target as the table does, also ``cpu``; a GPU by its newest architecture."""
    if target.gpu is not None:
        return GPU_PREFIX + target.gpu.newest
    return target.entry


def shipped_log(target: Target) -> Path:
    """Return the folder of the logs that come with this release."""
    return LOGS / entry_name(target)


def own_log(target: Target) -> Path:
    """Return the folder that ``tune`` writes to: a checkout's own, else one of the user's."""
    return shipped_log(target) if is_checkout() else _own_logs() / entry_name(target)


def begin_own_log(target: Target) -> Path:
    """Make sure that the user's log begins with what the shipped one knows.

    Returns:
        `own_log`.
    """
    own, shipped = own_log(target), shipped_log(target)
    if not is_log(own) and own != shipped and is_log(shipped):
        shutil.copytree(shipped, own, dirs_exist_ok=True)
        logger.info("tune: %s begins with the shipped log's records", own)
    return own


def known_log(target: Target) -> Path:
    """Find the folder that ``compile`` reads: the user's if there is one, else the shipped."""
    own = own_log(target)
    return own if is_log(own) else shipped_log(target)


def _own_logs() -> Path:
    return data_folder() / "tuning_logs"


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
    roots = (LOGS,) if is_checkout() else (_own_logs(), LOGS)
    found = [folder for root in roots for folder in root.glob(f"{prefix}*") if is_log(folder)]
    wanted = int(target.gpu.newest.removeprefix("sm_"))

    def distance(folder: Path) -> int:
        return abs(int(folder.name.removeprefix(prefix)) - wanted)

    return min(found, key=distance, default=None)
