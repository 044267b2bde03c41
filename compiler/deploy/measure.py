"""Run a finished bundle: here, or under an emulator where it is for another processor."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compiler.deploy.tools import run_tool
from compiler.emulation import EMULATOR, SYSTEM_ROOT, why_not
from compiler.targets import Target, host_flags, missing_flags

ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """What the runner said.

    Attributes:
        verified: ``here``, ``emulated``, or ``no`` where neither is possible.
        peak_bytes: of the process that ran the model, code and C library included; only known here.
    """

    verified: str
    peak_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def check_and_measure(runner: Path, target: Target) -> Measured:
    """Run ``verify``, and a short ``bench`` if this machine can.

    Args:
        runner: in the bundle.
        target: of the bundle.

    Returns:
        What is known.

    Raises:
        VitqError: the bundle's integers are not the golden ones, or it does not run.
    """
    path = str(runner.resolve())
    if platform.machine() in target.machine:
        if missing_flags(target, host_flags()):
            return Measured("no")
        run_tool([path, "verify"], "checking the bundle")
        options = ["--rounds", str(ROUNDS), "--warmup", "1", "--json"]
        found = json.loads(run_tool([path, "bench", *options], "measuring the bundle"))
        return Measured("here", found["peak_bytes"])
    if target.emulation is None or why_not(target):
        return Measured("no")
    emulator = [EMULATOR, "-L", str(SYSTEM_ROOT), "-cpu", target.emulation.cpu]
    run_tool([*emulator, path, "verify"], "checking the bundle")
    return Measured("emulated")
