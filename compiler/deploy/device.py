"""Copy a bundle to a device with the system's ssh, and let the device verify it."""

import logging
import re
from pathlib import Path

from vitq.compiler.target.tools import run_tool
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

DESTINATION = re.compile(r"(?P<host>(?:[\w.-]+@)?[\w][\w.-]*)(?::(?P<folder>[\w./~-]*))?")
DEFAULT_FOLDER = "vitq"
SSH_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def send(bundle: Path, destination: str) -> str:
    """Copy a bundle and run ``vitq-run verify`` there.

    Args:
        bundle: its folder.
        destination: ``user@host`` or ``user@host:folder``; the folder is ``vitq`` if not given.

    Returns:
        What the device said.

    Raises:
        VitqError: no ssh, no connection, or the device computes other integers.
    """
    match = DESTINATION.fullmatch(destination)
    if match is None:
        raise VitqError(f"--to {destination!r}: write user@host or user@host:folder")
    host, folder = match["host"], match["folder"] or DEFAULT_FOLDER
    if folder.startswith("-"):
        raise VitqError(
            f"--to {destination!r}: a folder may not start with a dash: write ./{folder}"
        )
    run_tool(["ssh", *SSH_OPTIONS, host, f"mkdir -p {folder}"], f"--to {host}")
    contents = [str(path) for path in sorted(bundle.iterdir())]
    run_tool(["scp", "-q", "-r", *SSH_OPTIONS, *contents, f"{host}:{folder}/"], f"--to {host}")
    said = run_tool(["ssh", *SSH_OPTIONS, host, f"{folder}/vitq-run verify"], f"verify on {host}")
    logger.info("deploy: %s:%s: %s", host, folder, said.strip())
    return said.strip()
