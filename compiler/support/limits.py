"""Numbers that an option takes: bounds, in one line with the option's name."""

import math
import os
from contextlib import suppress
from pathlib import Path

from vitq.numerics.errors import VitqError

LARGEST_BATCH = 1 << 16
LARGEST_SEED = (1 << 63) - 1
LARGEST_COUNT = 1 << 31
"""Pictures, measurements, steps, rounds: nobody waits for more."""
LARGEST_MADE = 1 << 12
"""Pictures that are made from the model: all are in memory at once."""
LARGEST_SIDE = 1 << 14
MOST_THREADS = 1024
LONGEST_MINUTES = 60 * 24 * 366.0


def check_number(name: str, value: float | None, low: float, high: float, remedy: str = "") -> None:
    """Refuse a number out of bounds, NaN included.

    Args:
        name: what it is called where it was given.
        value: None where it was not.
        low: the least.
        high: the most.
        remedy: what the bounds are, in other words.

    Raises:
        VitqError: naming the bounds.
    """
    if value is None or (not math.isnan(value) and low <= value <= high):
        return
    shown = repr(value) if len(repr(value)) < 30 else f"{repr(value)[:20]}..."
    raise VitqError(f"{name} {shown}: give {remedy or f'{low:g} to {high:g}'}")


def free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process may still take; None where the system does not say.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    group = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):  # "max" is no number
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(int(limit) - int(used))
    return min(found, default=None)


def usable_cores(threads: int) -> list[int]:
    """Return the first cores that this process may use, one for each thread.

    Raises:
        VitqError: if there are fewer.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    if not 1 <= threads <= len(cores):
        raise VitqError(
            f"--threads {threads}: give 1 to {len(cores)}, the cores that this process may use"
        )
    return cores[:threads]
