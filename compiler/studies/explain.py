"""Study ``explain``: where a quantized model's accuracy goes.

    float model (traced, rewritten) --align--> the same nodes as the quantized graph
    both, node by node, over pictures ----walk---> figures of each node, results, changed answers
    roundings taken out, on a few pictures ------> what each costs, alone and among the others
    all of it ---------------------------------> findings: cause and remedy in a sentence each

Pictures pass in batches; of each node only sums are kept (`quantization.explain.walk`). A model
that ranks classes is judged by its logits and answers alone, any other by all of its results.
"""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitq.compiler.stages.float_reference import float_model, float_runner
from vitq.compiler.stages.identity import IN_MEMORY, STATE
from vitq.compiler.stages.run import best_classes
from vitq.compiler.stages.scores import row_of
from vitq.compiler.studies.explanation import (
    Changed,
    Explanation,
    LayerCost,
    NodeFigures,
    Variant,
)
from vitq.compiler.studies.findings import findings
from vitq.compiler.support.artifacts import QUANTIZE_NAME, Artifact, open_artifact
from vitq.compiler.support.embedded import EMBEDDED_MODELS, own_pictures
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.graph.outputs import LOGITS, OutputLayout
from vitq.quantization.model.given import GivenModel
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.preprocessing import Preprocessing
from vitq.quantization.run.sqnr import decibels, sqnr_db

if TYPE_CHECKING:
    from vitq.quantization.explain.walk import Walk
    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.graph.graph import Graph, Node
    from vitq.quantization.pictures.decoding import OpenPictures

logger = logging.getLogger(__name__)

BATCH = 4
PICTURES = 64
REMOVALS = 16
SAME_DB = 50.0
"""The aligned float model has the float model's logits at least this well, or is another's."""
SHOWN = 60
"""Changed pictures of which a report has the pixels."""
_BLOCK = re.compile(r"(.*?\.\d+)(?:[.:]|$)")


def explain(
    folder: Path,
    pictures: str | GivenPictures | None = None,
    count: int | None = PICTURES,
    removals: int = REMOVALS,
    module: GivenModel | None = None,
) -> Explanation:
    """Compare a quantized model with its float model, node by node.

    Args:
        folder: of the artifact, or of a target in it.
        pictures: folder, ``.npy`` or in hand; None for the embedded model's held-out digits.
        count: how many, None for all.
        removals: on how many of them roundings are taken out in turn; 0 leaves that out.
        module: the float model, where it is in hand.

    Returns:
        The explanation.

    Raises:
        VitqError: no pictures, or a float model that is unknown or not there any more.
    """
    from vitq.quantization.graph import artifact as storage
    from vitq.quantization.pictures.pictures import EVALUATION, open_pictures

    if removals < 0:
        raise VitqError(f"--removals {removals}: give a number of pictures, or 0 for none")
    started = time.perf_counter()
    artifact = open_artifact(folder)
    if artifact.is_foreign:
        raise VitqError(
            f"{artifact.folder}: the float model behind a foreign file is unknown, so there is "
            "nothing to compare with: quantize the PyTorch model with vitq quantize"
        )
    quantized = storage.load(artifact.folder)
    facts = quantized.provenance
    source = pictures or (
        own_pictures(facts["model"]) if facts["model"] in EMBEDDED_MODELS else None
    )
    if source is None:
        raise VitqError("no pictures to explain with: pass --pictures FOLDER (with labels.csv)")
    prep = Preprocessing.from_json(facts["preprocessing"], artifact.folder / QUANTIZE_NAME)
    outputs = _keep_logits(quantized.graph)
    data = open_pictures(source, prep, count, EVALUATION, outputs=outputs)
    first = np.stack([data.read(place) for place in range(min(BATCH, len(data)))])
    exact = _aligned(artifact, quantized, prep, module, first)
    found = _explained(artifact, exact, quantized, data, removals)
    logger.info("explain: %d pictures (%.1f s)", len(data), time.perf_counter() - started)
    return found


def _keep_logits(graph: "Graph") -> int | None:
    """Leave nothing but the logits where there are some; returns how many classes they rank."""
    classes = graph.layout.classes
    if classes is not None:
        graph.outputs = {LOGITS: graph.outputs[LOGITS]}
        graph.remove_dead()
    return classes


def _aligned(
    artifact: Artifact,
    quantized: "QuantizedModel",
    prep: Preprocessing,
    given: GivenModel | None,
    pixels: UInt8Array,
) -> "Graph":
    """Return the float model in the quantized model's terms, after a check of its results."""
    import torch

    from vitq.quantization.explain.alignment import align
    from vitq.quantization.graph.tracing import trace
    from vitq.quantization.ranges.calibrate import rewrite
    from vitq.quantization.run.fake_quantize import GraphModule

    module = _float_module(artifact, quantized.provenance, given)
    graph = trace(module, prep.input_shape)
    layout = graph.layout
    rewrite(graph, Nonlinear.parse(quantized.provenance["nonlinear"]), prep.mean, prep.std)
    exact = align(graph, quantized.graph)
    wanted = float_runner(module, prep.mean, prep.std)(pixels)
    if quantized.graph.layout.classes is not None:
        wanted = layout.split(wanted)[LOGITS]
    found = GraphModule(exact)(torch.from_numpy(pixels)).numpy()
    if sqnr_db(wanted, found) < SAME_DB:
        raise VitqError(
            f"{artifact.folder}: the float model cannot be brought to the quantized one's scales: "
            "one of them has changed: quantize again"
        )
    return exact


def _float_module(artifact: Artifact, facts: dict[str, Any], given: GivenModel | None) -> Any:
    """Return the ``torch.nn.Module`` that was quantized."""
    from vitq.quantization.graph.identity import module_hash

    if given is None and IN_MEMORY in facts:
        raise VitqError(
            f"{artifact.folder}: its float model was in memory and no file holds it: explain it in "
            "Python: vitq.load(folder, model=model).explain(pixels)"
        )
    if given is None:
        return float_model(artifact.folder)[0]
    in_memory = facts.get(IN_MEMORY)
    if in_memory is not None:
        is_other = in_memory != given.digest
    else:
        is_other = facts.get(STATE, now := module_hash(given.module)) != now
    if is_other:
        raise VitqError(
            f"{artifact.folder} was not quantized from this model: its weights are others"
        )
    return given.module


def _explained(
    artifact: Artifact,
    exact: "Graph",
    quantized: "QuantizedModel",
    data: "OpenPictures",
    removals: int,
) -> Explanation:
    """Walk, take roundings out, and say what is found."""
    from vitq.quantization.explain.walk import Walk

    walk, layout = Walk(exact, quantized.graph), quantized.graph.layout
    few, shown, pairs = min(removals, len(data)), [], []
    kept: list[UInt8Array] = []
    for pixels in progress_bar(data.batches(BATCH), "compare", -(-len(data) // BATCH)):
        kept.extend(pixels[: max(few - len(kept), 0)])
        pairs.append(walk.run(pixels))
        shown.extend(pixels[_differ(layout, *pairs[-1])])
        del shown[SHOWN:]
    floats, integers = (_rows(np.concatenate(part)) for part in zip(*pairs, strict=True))
    variants, layers = _removals(exact, quantized.graph, kept, floats[:few], integers[:few])
    differing = np.flatnonzero(_differ(layout, floats, integers)).tolist()
    changed = [_change(i, floats, integers, data) for i in differing]
    labels = None if layout.classes is None else data.labels
    right = [
        None if labels is None else int((y.argmax(1) == labels).sum()) for y in (floats, integers)
    ]
    facts = quantized.provenance
    result = Explanation(
        model=facts["model"],
        artifact=str(artifact.folder),
        settings={
            "recipe": facts["recipe"]["name"],
            "method": facts["method"],
            "nonlinear": facts["nonlinear"],
            "calibration": facts["calibration"],
        },
        pictures=len(data),
        source=data.source,
        float_top1=right[0],
        integer_top1=right[1],
        agreement=None if layout.classes is None else 1 - len(changed) / len(data),
        sqnr_db=sqnr_db(floats, integers),
        findings=[],
        variants=variants,
        nodes=list(_figures(walk)),
        layers=sorted(layers, key=lambda cost: -cost.share),
        changed=changed,
        class_names=data.class_names,
        outputs=list(row_of("", integers, floats, None, 0.0, layout).outputs),
        shown=shown,
    )
    result.findings.extend(findings(result))
    return result


def _rows(results: FloatArray) -> FloatArray:
    return results.reshape(len(results), -1)


def _differ(layout: OutputLayout, floats: FloatArray, integers: FloatArray) -> Any:
    """Which pictures got another answer; none where there are no answers."""
    if layout.classes is None:
        return np.zeros(len(floats), bool)
    return floats.argmax(1) != integers.argmax(1)


def _removals(
    exact: "Graph",
    quantized: "Graph",
    pictures: list[UInt8Array],
    floats: FloatArray,
    integers: FloatArray,
) -> tuple[list[Variant], list[LayerCost]]:
    """Take whole kinds of roundings out, then one after the other."""
    import torch

    from vitq.quantization.explain.removal import Kind, measure_costs, noise, parts_of, without_kind
    from vitq.quantization.graph.origins import label_of
    from vitq.quantization.run.fake_quantize import GraphModule

    if not pictures:
        return [], []
    pixels, layout = np.stack(pictures), quantized.layout
    ranks = layout.classes is not None

    def variant(name: str, found: FloatArray) -> Variant:
        agreement = 1 - float(_differ(layout, floats, found).mean()) if ranks else None
        return Variant(name, decibels(1.0, noise(floats, found)), agreement)

    def simulated(graph: "Graph") -> FloatArray:
        module = GraphModule(graph, simulate=True)
        batches = torch.split(torch.from_numpy(pixels), BATCH)
        return _rows(np.concatenate([module(batch).numpy() for batch in batches]))

    variants = [variant("nothing", integers), variant("integer operators", simulated(quantized))]
    variants += [
        variant(str(kind), simulated(without_kind(exact, quantized, kind))) for kind in Kind
    ]
    parts = parts_of(quantized)
    costs = measure_costs(exact, quantized, floats, pixels, parts, progress_bar)
    found = [(cost, label_of(quantized.nodes[cost.part.layer])) for cost in costs]
    total = sum(cost.alone for cost, _ in found)
    layers = [
        LayerCost(
            layer=cost.part.layer,
            module=label,
            part=cost.part.part,
            bits=cost.bits,
            share=cost.alone / total,
            alone_db=decibels(1.0, cost.alone),
            gone=cost.gone,
            regained=cost.regained if ranks else None,
        )
        for cost, label in found
    ]
    return variants, layers


def _change(index: int, floats: FloatArray, integers: FloatArray, data: "OpenPictures") -> Changed:
    before, after = (_answer(logits[index]) for logits in (floats, integers))
    label = None if data.labels is None else int(data.labels[index])
    name = data.files[index].name if len(data.files) >= len(data) > 1 else ""
    return Changed(index, name, label, *before, *after)


def _answer(logits: FloatArray) -> tuple[int, float]:
    """Class and probability."""
    (best,) = best_classes(logits, None, 1)
    return best.number, best.probability


def _figures(walk: "Walk") -> Iterator[NodeFigures]:
    """Return what was summed, for people."""
    from vitq.quantization.explain.walk import reach_of
    from vitq.quantization.graph.origins import label_of

    for name, sums in walk.sums.items():
        node = walk.quantized.nodes[name]
        label = label_of(node)
        yield NodeFigures(
            name=name,
            module=label,
            op=str(node.op),
            source=walk.exact.nodes[name].source,
            block=block_of(label),
            bits=_bits(node),
            sqnr_db=sums.sqnr_db,
            own_sqnr_db=sums.own_sqnr_db,
            cosine=sums.cosine,
            seen=(sums.low, sums.high),
            reach=reach_of(node),
            clipped=sums.clipped_share,
            lost=sums.lost / max(sums.own, 1e-30),
        )


def _bits(node: "Node") -> int | None:
    return None if node.out is None else (node.out.qmax - node.out.qmin).bit_length()


def block_of(label: str) -> str:
    """Return the block that a module belongs to: ``blocks.0``, or its first name."""
    found = _BLOCK.match(label)
    return found[1] if found else re.split(r"[.:]", label)[0]
