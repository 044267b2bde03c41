"""How close each of a model's results is to the float model's, batch by batch.

cosine      of each picture's values as one vector: the mean over pictures, and the least
SQNR        10 log10(sum(float**2) / sum((float - x)**2)), dB
retrieval   share of pictures whose nearest neighbour among all pictures is the float model's
            (`quantization.run.retrieval`); of embeddings only, (N, C), which are kept for it
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.quantization.run.sqnr import decibels

MOST_KEPT = 1 << 28
"""Values of embeddings that are kept; of more pictures the first count for retrieval."""


@dataclass(frozen=True)
class OutputScore:
    """One result of one backend.

    Attributes:
        name: of the result.
        mean_cosine: with the float model's, over pictures.
        least_cosine: of the worst picture.
        sqnr_db: None for the float model itself.
        retrieval: share of pictures with the float model's nearest neighbour; None where the
            result is no embedding, or logits.
    """

    name: str
    mean_cosine: float
    least_cosine: float
    sqnr_db: float | None
    retrieval: float | None


@dataclass
class OutputSums:
    """Running sums over one result.

    Attributes:
        name: of the result.
        keeps: whether its rows are kept for retrieval.
    """

    name: str
    keeps: bool
    _cosines: list[FloatArray] = field(default_factory=list)
    _noise: float = 0.0
    _power: float = 0.0
    _rows: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    _kept: int = 0

    def add(self, found: FloatArray, exact: FloatArray) -> None:
        """Take a batch: (N, ...) of the backend and of the float model."""
        from vitq.export.parity import cosine

        found, exact = (part.reshape(len(part), -1) for part in (found, exact))
        self._cosines.append(cosine(found, exact))
        signal = exact.astype(np.float64)
        self._power += float(np.square(signal).sum())
        self._noise += float(np.square(signal - found).sum())
        self._kept += found.size
        if self.keeps and self._kept <= MOST_KEPT:
            self._rows.append((found.astype(np.float32), exact.astype(np.float32)))

    def score(self, is_float: bool) -> OutputScore:
        """Return what it came to."""
        cosines = np.concatenate(self._cosines)
        return OutputScore(
            self.name,
            float(cosines.mean()),
            float(cosines.min()),
            None if is_float else decibels(self._power, self._noise),
            self._retrieval() if self.keeps else None,
        )

    def _retrieval(self) -> float:
        from vitq.quantization.run.retrieval import nearest_others

        found, exact = (np.concatenate(rows) for rows in zip(*self._rows, strict=True))
        return float((nearest_others(found) == nearest_others(exact)).mean())


def table_cells(name: str, scores: tuple[OutputScore, ...]) -> list[list[Any]]:
    """Rows of a person's table: backend, result and figures."""
    return [
        [
            name,
            score.name,
            f"{score.mean_cosine:.4f}",
            f"{score.least_cosine:.4f}",
            "-" if score.sqnr_db is None else f"{score.sqnr_db:.1f}",
            "-" if score.retrieval is None else f"{100 * score.retrieval:.1f} %",
        ]
        for score in scores
    ]


OUTPUT_HEAD = ["backend", "result", "cosine", "least", "SQNR", "same neighbour"]
