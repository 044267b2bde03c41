"""What results say, summed up batch by batch: no more than one batch of logits is held.

First choices and labels are for logits; without any both are left out. The cosine and the SQNR are
those of the logits, or of the first result; where there is more to say each result has a line of
its own (`compiler.stages.output_scores`).

top-1, top-5, agreement with the float model    counts
mean cosine                                     sum of the pictures' cosines / pictures
SQNR                                            10 log10(sum(float**2) / sum((float - x)**2))
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from vitq.compiler.stages.output_scores import OutputScore, OutputSums
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.quantization.graph.outputs import LOGITS, OutputLayout

ONLY_LOGITS = OutputLayout({LOGITS: (0,)})
"""Of a classifier, whatever the number of its classes: one result is never taken apart."""
CHANCE = 3.0
"""Accuracy below as many times chance is no accuracy."""
FAITHFUL = 0.9
"""Agreement with the float model from which labels are suspected, and not the quantization."""
ENOUGH = 20
"""Labelled pictures before labels are suspected."""
NEARLY_ALL, MIXED = 0.95, 0.7
"""Share of the answers that makes them one; the largest share of a class in labels of several."""


@dataclass(frozen=True)
class Row:
    """One backend's result.

    Attributes:
        name: of `compiler.stages.evaluate.BACKENDS`.
        images: how many pictures.
        top1: correct first choices, None without labels.
        top5: correct among the first five, None without labels.
        agreement: fraction of pictures with the float model's first choice; this and the next are
            None where the float model is unknown.
        mean_cosine: of the logits with the float model's.
        sqnr_db: signal-to-quantization-noise ratio of the logits, dB; None for the float model.
        seconds: for all pictures, not a benchmark.
        computed: of how many pictures this backend ran; the others' integers are the library's,
            proven equal. None: of all.
        outputs: each result, where the model returns more than logits and is compared with float.
    """

    name: str
    images: int
    top1: int | None
    top5: int | None
    agreement: float | None
    mean_cosine: float | None
    sqnr_db: float | None
    seconds: float
    computed: int | None = None
    outputs: tuple[OutputScore, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields; the outputs where there are any."""
        found = asdict(self)
        if not self.outputs:
            del found["outputs"]
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `to_json` returned."""
        outputs = tuple(OutputScore(**score) for score in content.get("outputs", ()))
        return cls(**{**content, "outputs": outputs})


@dataclass
class Scores:
    """Running sums over one backend's results.

    Attributes:
        name: of the backend.
        layout: of its rows.
        computed: as in `Row`.
        seconds: spent so far.
        pairs: how often (label, first choice) occurred.
    """

    name: str
    layout: OutputLayout = ONLY_LOGITS
    computed: int | None = None
    seconds: float = 0.0
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    _images: int = 0
    _top5: int = 0
    _agreed: int = 0
    _has_float: bool = False

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self._sums = {
            name: OutputSums(name, len(shape) == 1 and name != self.layout.logits)
            for name, shape in self.layout.shapes.items()
        }

    def add(self, rows: FloatArray, float_rows: FloatArray | None, labels: IntArray | None) -> None:
        """Take a batch: logits (N, classes) or rows, the float model's, labels (N,)."""
        self._images += len(rows)
        parts = self.layout.split(rows)
        exact = None if float_rows is None else self.layout.split(float_rows)
        if exact is not None:
            self._has_float = True
            for name, sums in self._sums.items():
                sums.add(parts[name], exact[name])
        if self.layout.classes is None:
            return
        logits = parts[self.layout.logits]
        if labels is not None:
            order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
            self._top5 += int((order == labels[:, None]).any(axis=1).sum())
            self.pairs.update(zip(labels.tolist(), order[:, 0].tolist(), strict=True))
        if exact is not None:
            self._agreed += int((logits.argmax(1) == exact[self.layout.logits].argmax(1)).sum())

    @property
    def top1(self) -> int:
        """Correct first choices."""
        return sum(count for (label, choice), count in self.pairs.items() if label == choice)

    def row(self) -> Row:
        """Return what it came to."""
        is_labelled, ranks = bool(self.pairs), self.layout.classes is not None
        found = {}
        if self._has_float:
            found = {name: sums.score(self.name == "float") for name, sums in self._sums.items()}
        main = found.get(self.layout.logits if ranks else self.layout.names[0])
        return Row(
            self.name,
            self._images,
            self.top1 if is_labelled else None,
            self._top5 if is_labelled else None,
            self._agreed / self._images if ranks and main else None,
            main.mean_cosine if main else None,
            main.sqnr_db if main else None,
            round(self.seconds, 2),
            self.computed,
            () if ranks and len(found) == 1 else tuple(found.values()),
        )

    def one_answer(self) -> str | None:
        """Say that nearly all answers are one class while the labels are several, if so."""
        answers: Counter[int] = Counter()
        labels: Counter[int] = Counter()
        for (label, choice), count in self.pairs.items():
            answers[choice] += count
            labels[label] += count
        total = answers.total()
        if total < ENOUGH or labels.most_common(1)[0][1] > MIXED * total:
            return None
        choice, count = answers.most_common(1)[0]
        if count < NEARLY_ALL * total:
            return None
        return f"{count} of {total} answers are class {choice}"

    def label_doubts(self, outputs: int) -> str | None:
        """Say that labels look as if they were another order of classes, if they do.

        Args:
            outputs: how many classes the model has.
        """
        total = sum(self.pairs.values())
        if self.one_answer() is not None:
            return None
        if total < ENOUGH or self.top1 > max(CHANCE / outputs, 0.05) * total:
            return None
        moves: Counter[int] = Counter()
        for (label, choice), count in self.pairs.items():
            moves[choice - label] += count
        shift, hits = moves.most_common(1)[0]
        hint = f": {hits} would be right if every label were {shift:+d}" if 2 * hits > total else ""
        return f"{self.top1} of {total} labels are right, which is chance{hint}"


def row_of(
    name: str,
    logits: FloatArray,
    float_logits: FloatArray | None,
    labels: IntArray | None,
    seconds: float,
    layout: OutputLayout = ONLY_LOGITS,
) -> Row:
    """Return what logits (N, classes), or rows, say, beside the float model's and the labels."""
    scores = Scores(name, layout, seconds=seconds)
    scores.add(logits, float_logits, labels)
    return scores.row()


def table_rows(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Cells for a person's table."""
    for row in rows:
        top1, top5 = (
            "-" if n is None else f"{n}/{row.images} ({100 * n / row.images:.1f} %)"
            for n in (row.top1, row.top5)
        )
        sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        yield [
            row.name if row.computed is None else f"{row.name} (ran {row.computed})",
            top1,
            top5,
            "-" if row.agreement is None else f"{100 * row.agreement:.1f} %",
            "-" if row.mean_cosine is None else f"{row.mean_cosine:.4f}",
            sqnr,
            f"{row.seconds:.1f}",
        ]
