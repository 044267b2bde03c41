"""What was measured on: processor, caches, system, versions."""

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from vitq.compiler.support.extras import installed
from vitq.compiler.target.host import host_cpu, host_flags

PACKAGES = (
    "vitq",
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "openvino",
    "nncf",
)
FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
STATUS = Path("/proc/self/status")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
MIB = 2**20


def describe_machine(cores: list[int]) -> dict[str, Any]:
    """All that a reader needs to judge the figures.

    Args:
        cores: that the contestants may use.
    """
    flags = host_flags()
    return {
        "processor": host_cpu(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores_present": os.cpu_count(),
        "cores_used": cores,
        "load_before": _load(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.is_file() else "not readable",
        "hypervisor": "hypervisor" in flags,
        "cache_bytes": cache_sizes(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "versions": {name: installed(name) or "not installed" for name in PACKAGES},
    }


def pin(cores: list[int]) -> None:
    """Bind this process (every thread that it starts from now on) to some cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cores))


def peak_rss_mb() -> float:
    """Return the largest resident memory that this process had, MiB.

    Not ``ru_maxrss`` where the system offers better: that survives ``exec``, so that a child shows
    at least what its parent had.
    """
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / MIB


def cache_sizes() -> dict[str, int]:
    """Bytes of each cache that holds data, as ``L1``, ``L2``, ``L3``."""
    sizes = {}
    for folder in sorted(CACHE_FOLDER.glob("index*")):
        try:
            kind, level, size = (
                (folder / name).read_text().strip() for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}"] = int(size.rstrip("KMG")) * UNITS.get(size[-1], 1)
    return sizes


def _load() -> float | None:
    """Count the running processes of the last minute: other work on the machine."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
