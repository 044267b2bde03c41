"""What the tests of `compiler.studies.spreading` let processes do."""

import os
import signal
import time
from pathlib import Path
from typing import Any


def square(number: int) -> int:
    """A small job; 13 kills its process."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def meet(folder: str) -> bool:
    """Whether another job runs at the same time: each waits for two files."""
    (Path(folder) / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if len(list(Path(folder).iterdir())) >= 2:
            return True
        time.sleep(0.05)
    return False


def slow(place: str) -> int:
    """Note its process and wait a while, so that its worker can be killed meanwhile."""
    with Path(place).open("a") as file:
        file.write(f"{os.getppid()}\n")
    time.sleep(3)
    return os.getppid()


def refused() -> Any:
    """`tests.compiler.factories.unsupported`, with the same weights at each call."""
    import torch

    from tests.compiler.factories import unsupported

    torch.manual_seed(0)
    return unsupported()
