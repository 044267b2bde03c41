"""Several results of one network, as one row for each picture.

Whatever computes (PyTorch, onnxruntime, the reference, a library) returns one array, the row

    one result:       (N, *shape), as it is
    several results:  (N, K), each flattened, one behind the other in the model's order

so that all that compares integers bit for bit, moves or stores them knows no names. What shows
results to a person, or judges them, splits the row by its `OutputLayout`. Each result has a scale
of its own: real values are joined after, never before, they are dequantized.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray

AnyArray = FloatArray | IntArray
Rows = TypeVar("Rows", bound=Any)
"""NumPy's array, or PyTorch's tensor."""

LOGITS = "logits"
"""What a result that ranks classes is called: only it has first choices and labels."""
FEATURES = "features"
"""What the only result of a model is called that returns no classes, if nobody named it."""


@dataclass(frozen=True)
class OutputLayout:
    """Where the results of one picture are in its row.

    Attributes:
        shapes: name -> shape for one picture, in order.
        logits: name of the result that ranks classes, if it is there and (classes,).
    """

    shapes: Mapping[str, tuple[int, ...]]
    logits: str = LOGITS

    @property
    def names(self) -> tuple[str, ...]:
        """All results."""
        return tuple(self.shapes)

    @property
    def classes(self) -> int | None:
        """How many classes the model ranks, None where it does not."""
        shape = self.shapes.get(self.logits, ())
        return shape[0] if len(shape) == 1 else None

    def split(self, rows: Rows) -> dict[str, Rows]:
        """Take rows apart.

        Args:
            rows: of `join`.

        Returns:
            Name -> (N, *shape).
        """
        if len(self.shapes) == 1:
            return dict.fromkeys(self.shapes, rows)
        found, start = {}, 0
        for name, shape in self.shapes.items():
            part = rows[:, start : start + prod(shape)]
            found[name] = part.reshape(len(rows), *shape)
            start += prod(shape)
        return found


def join(results: Iterable[AnyArray], pictures: int) -> AnyArray:
    """Make rows of results.

    Args:
        results: (N, ...) of each, in order.
        pictures: N.

    Returns:
        The only one as it is, several as (N, K).
    """
    parts = list(results)
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(pictures, -1) for part in parts], axis=1)
