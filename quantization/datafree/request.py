"""What a generator of calibration pictures is asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

Track = Callable[[Iterable[int], str, int], Iterable[int]]
"""(steps, title, how many) -> the steps, with a progress bar."""


@dataclass(frozen=True)
class Request:
    """How many pictures, for which input.

    Attributes:
        count: number of pictures.
        seed: of everything random.
        steps: of gradient descent; None for the generator's own number.
        mean: of the model's input normalization, in [0, 1] units.
        std: likewise.
        device: where to run.
    """

    count: int
    seed: int
    steps: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device


def best_device() -> torch.device:
    """Choose a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
