"""What `compiler.studies.explain` finds, as data."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from vitq.compiler.stages.output_scores import OutputScore
from vitq.numerics.arrays import UInt8Array


@dataclass(frozen=True)
class NodeFigures:
    """One node of the integer network beside the float one.

    Attributes:
        name: of the node, as in ``quantize.json``.
        module: what it is called in the PyTorch model.
        op: operator.
        source: line of the model's code, if the tracer knows it.
        block: of the network.
        bits: of its quantizer, None for accumulators.
        sqnr_db: of what the integer network has here.
        own_sqnr_db: of what this node alone adds.
        cosine: of both networks' values.
        seen: smallest and largest float value on these pictures.
        reach: smallest and largest value that the quantizer holds, None without one.
        clipped: share of the float values beyond that.
        lost: share of the node's own error that is clipping.
    """

    name: str
    module: str
    op: str
    source: str
    block: str
    bits: int | None
    sqnr_db: float
    own_sqnr_db: float
    cosine: float
    seen: tuple[float, float]
    reach: tuple[float, float] | None
    clipped: float
    lost: float


@dataclass(frozen=True)
class LayerCost:
    """What one layer's rounding costs (`quantization.explain.removal`).

    Attributes:
        layer: node.
        module: what it is called in the PyTorch model.
        part: ``weight`` or ``activation`` (what it reads).
        bits: width.
        share: of the sum of all errors that single roundings make alone.
        alone_db: SQNR of the results with only this rounding.
        gone: share of the results' error that goes when this one alone is taken out.
        regained: answers that become the float model's then, less those that are lost; None of a
            model that ranks no classes.
    """

    layer: str
    module: str
    part: str
    bits: int
    share: float
    alone_db: float
    gone: float
    regained: int | None


@dataclass(frozen=True)
class Variant:
    """The results of the model with something taken out.

    Attributes:
        name: what is taken out.
        sqnr_db: of the results, the mean over pictures.
        agreement: fraction of pictures with the float model's answer; None without classes.
    """

    name: str
    sqnr_db: float
    agreement: float | None


@dataclass(frozen=True)
class Changed:
    """A picture with another answer.

    Attributes:
        index: in the order of the pictures.
        name: of its file, empty without one.
        label: right class, if known.
        float_class: the float model's answer.
        float_probability: that it gives it.
        integer_class: the integers' answer.
        integer_probability: that they give it.
    """

    index: int
    name: str
    label: int | None
    float_class: int
    float_probability: float
    integer_class: int
    integer_probability: float


@dataclass(frozen=True)
class Explanation:
    """Where accuracy goes; see `to_json`.

    Attributes:
        model: its name.
        artifact: its folder.
        settings: recipe, method, nonlinear family, calibration.
        pictures: how many.
        source: where they come from.
        float_top1: right answers of the float model, None without labels.
        integer_top1: of the integers.
        agreement: fraction of pictures with the same answer; None of a model that ranks no classes.
        sqnr_db: of the logits; of such a model, of all results together.
        findings: causes, with remedies, the most important one first.
        variants: what taking out whole kinds of roundings gives.
        nodes: in execution order.
        layers: what each rounding costs; the dearest first.
        changed: pictures whose answer changed.
        class_names: of classes, by number, as far as the pictures' source names them.
        outputs: how close each result is, of a model that ranks no classes.
        shown: their pixels (C, H, W) uint8, for a report; not in the JSON.
    """

    model: str
    artifact: str
    settings: dict[str, Any]
    pictures: int
    source: str
    float_top1: int | None
    integer_top1: int | None
    agreement: float | None
    sqnr_db: float
    findings: list[str]
    variants: list[Variant]
    nodes: list[NodeFigures]
    layers: list[LayerCost]
    changed: list[Changed]
    class_names: dict[int, str] = field(default_factory=dict)
    outputs: list[OutputScore] = field(default_factory=list)
    shown: list[UInt8Array] = field(default_factory=list, repr=False)

    @property
    def results(self) -> str:
        """What the figures are of."""
        return "logits" if self.agreement is not None else "results"

    def called(self, number: int) -> str:
        """Return a class's number, with its name where that is known."""
        return " ".join(filter(None, (str(number), self.class_names.get(number))))

    def to_json(self) -> dict[str, Any]:
        """All fields but the pixels."""
        content = dataclasses.asdict(dataclasses.replace(self, shown=[]))
        del content["shown"]
        return content
