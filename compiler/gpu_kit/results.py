"""What a run found, on disk after every step, and how much longer it may take."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from .kernels import wrong_cases

QUERY = "name,driver_version,clocks.sm,clocks.mem,power.limit"


class Results:
    """What was measured.

    Args:
        path: of the file.
        minutes: what would begin later than that from now is left out; None for no limit.

    Attributes:
        good: whether every integer that was to be compared is right.
    """

    def __init__(self, path: Path, minutes: float | None = None) -> None:
        self.path, self.minutes, self.started = path, minutes, time.monotonic()
        self.good = True
        self.content: dict[str, Any] = {
            "gpu": _gpu_state(), "golden": [], "tasks": [], "rows": [], "errors": [],
            "left_out": [],
        }  # fmt: skip

    def write(self) -> None:
        """Replace the file."""
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.content, indent=1))
        temporary.replace(self.path)

    def may_begin(self, what: str) -> bool:
        """Whether there is time left; if not, it is noted what was left out."""
        if self.minutes is None or time.monotonic() - self.started < 60 * self.minutes:
            return True
        self.content["left_out"].append(what)
        return False

    def failed(self, what: str, error: Exception | str) -> None:
        """Note what could not be measured."""
        line = (str(error).splitlines() or [type(error).__name__])[0]
        self.content["errors"].append({"what": what, "error": line})
        print(f"  {what}: {line}", flush=True)

    def wrong(self, what: str, error: Exception | str) -> None:
        """Note integers that differ, or that could not be compared: never taken for right."""
        self.failed(what, error)
        self.good = False

    def summary(self) -> list[str]:
        """Lines for the end: golden integers and kernels, then what was left out."""
        golden = self.content["golden"]
        points = [point for task in self.content["tasks"] for point in task["points"]]
        compared = sum(len(point["right"]) for point in points)
        wrong = sum(len(wrong_cases(point)) for point in points)
        failed = sum("error" in point for point in points)
        lines = [
            f"{self.path}: {len(golden)} models' golden integers, those of "
            f"{sum(row['different'] != 0 for row in golden)} differ; {compared} kernels x inputs "
            f"compared with the contract, {wrong} differ, {failed} kernels failed"
        ]
        if not self.good:
            lines.append("integers DIFFER or could not be compared: see errors")
        if left_out := self.content["left_out"]:
            lines.append(f"left out after {self.minutes:g} minutes: {'; '.join(left_out)}")
        return lines


def _gpu_state() -> str:
    try:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
