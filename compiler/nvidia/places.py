"""Where things of CUDA lie on this machine."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path


def nvidia_packages() -> list[Path]:
    """Folders that pip's CUDA packages share (``nvidia/cu13``), on this Python's path."""
    roots = dict.fromkeys([*sys.path, sysconfig.get_paths()["purelib"]])
    found = [folder for root in roots if root for folder in Path(root).glob("nvidia/cu1[3-9]")]
    return sorted(found, reverse=True)


def find_tool(name: str) -> Path | None:
    """Find a program of the CUDA toolkit: on the path, in CUDA's folder, or of pip's packages."""
    path = shutil.which(name)
    if path:
        return Path(path)
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(home) for home in homes if home] + nvidia_packages()
    for folder in folders:
        tool = folder / "bin" / name
        if tool.is_file() and os.access(tool, os.X_OK):
            return tool
    return None
