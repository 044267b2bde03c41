"""Run a finished bundle: here, or under an emulator where it is for another processor."""

import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitq.compiler.target.host import host_flags, missing_flags
from vitq.compiler.target.qemu import EMULATOR, SYSTEM_ROOT, count_program, why_not
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import run_tool
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """What the runner said.

    Attributes:
        verified: ``here``, ``emulated``, or ``no`` where neither is possible.
        peak_bytes: of the process that ran the model, code and C library included; only known here.
        instructions: executed for one batch, counted under the emulator: no time.
    """

    verified: str
    peak_bytes: int | None = None
    instructions: int | None = None

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
    if target.gpu is not None:
        from vitq.compiler.nvidia.driver import why_not_here

        if why_not_here(target.gpu):
            return Measured("no")
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
    return Measured("emulated", instructions=_instructions(path, target))


def _instructions(path: str, target: Target) -> int | None:
    """Count one inference's instructions: what a second one makes the program execute."""

    def whole(rounds: int) -> int:
        command = [path, "bench", "--warmup", "0", "--rounds", str(rounds)]
        return count_program(command, target).instructions

    try:
        return whole(2) - whole(1)
    except VitqError as error:  # counting needs a C compiler, deploying does not
        logger.info("deploy: instructions are not counted: %s", error)
        return None
