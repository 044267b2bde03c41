"""What a device says of itself (``compiler/deploy/runner/description.cc``)."""

import json
from dataclasses import dataclass

from vitq.compiler.target.table import Target
from vitq.numerics.errors import VitqError


@dataclass(frozen=True)
class Device:
    """A device that serves measurements.

    Attributes:
        name: for the records.
        architecture: as ``uname -m`` says.
        features: of its processor, as in /proc/cpuinfo.
        processor: its name.
        cores: how many.
        emulated: whether its processor is: what it computes counts, its times do not.
    """

    name: str
    architecture: str
    features: frozenset[str]
    processor: str
    cores: int
    emulated: bool

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.name} ({'emulated on ' if self.emulated else ''}{self.processor})"

    def require_fit(self, target: Target) -> None:
        """Refuse a target whose code this device cannot run.

        Raises:
            VitqError: what it lacks.
        """
        lacking = [need for need in target.needs if need not in self.features]
        if self.architecture not in target.machine:
            lacking = [target.machine[0]]
        if lacking:
            raise VitqError(
                f"device {self.title} lacks {', '.join(lacking)}, which target {target.name} "
                "needs: register it under another key"
            )


def parse_device(text: str) -> Device:
    """Parse a device's description.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(text)
        return Device(
            str(content["name"]),
            str(content["architecture"]),
            frozenset(map(str, content["features"])),
            str(content["processor"]),
            int(content["cores"]),
            bool(content["emulated"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a device's description: {text[:80]!r}") from error
