"""One combination of a comparison: a method at a width on a source of pictures."""

from dataclasses import asdict, dataclass
from typing import Any

from vitq.compiler.stages.scores import Row


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        calibration: source of the calibration pictures.
        recipe: widths.
        method: name.
        row: what it came to, None if it was refused.
        refused: why it could not be quantized, None if it could.
        seed: of the calibration pictures.
    """

    calibration: str
    recipe: str
    method: str
    row: Row | None
    refused: str | None = None
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)
