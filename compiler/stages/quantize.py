"""Stage 1: a PyTorch model and pictures become ``quantize.json`` and its safetensors."""

import copy
import logging
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.stages.float_model import load_float_model
from vitq.compiler.stages.identity import (
    FILES,
    GRAPH,
    STATE,
    are_files_unchanged,
    described_calibration,
    file_hashes,
    given_hash,
    loaded_hashes,
    quantize_fingerprint,
    traced_hash,
    used_weights,
)
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import (
    Artifact,
    is_current,
    read_json,
    versions,
    whole_or_nothing,
)
from vitq.compiler.support.embedded import GENERATED
from vitq.compiler.support.limits import free_memory
from vitq.compiler.support.locks import alone
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.files import require_writable
from vitq.quantization.model.names import is_factory, is_onnx
from vitq.quantization.pictures.preprocessing import Preprocessing
from vitq.quantization.plan.methods import DAMPING_MADE, Method

if TYPE_CHECKING:
    from vitq.compiler.stages.held_out import HeldOut
    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.model.models import LoadedModel
    from vitq.quantization.pictures.decoding import Pictures
    from vitq.quantization.plan.recipe import Recipe
    from vitq.quantization.run.judge import Judgement

    Meet = Callable[[int | None, Preprocessing], None]

logger = logging.getLogger(__name__)

SAMPLE_PICTURES = 8


@alone(lambda options, meet=None: options.artifact.folder)
def quantize(options: QuantizeOptions, meet: "Meet | None" = None) -> Artifact:
    """Run the stage, unless its inputs did not change.

    Args:
        options: what to quantize and how.
        meet: is told how many classes the model ranks (None: none), and what its input means,
            before long work begins: it may refuse pictures that are not for such a model.

    Returns:
        The artifact.

    Raises:
        VitqError: for any bad input.
    """
    from vitq.quantization.graph import artifact as storage

    artifact = options.artifact
    wanted = quantize_fingerprint(options)
    json_path = artifact.folder / storage.JSON_NAME
    tensors = artifact.folder / storage.TENSORS_NAME
    loaded = set(sys.modules)
    if is_current(json_path, wanted, tensors) and _is_model_unchanged(json_path, options):
        logger.info("quantize: unchanged, %s is up to date", json_path)
        if options.save_images is not None:
            prepare(options)
        if meet is not None:
            found = storage.load(artifact.folder)
            prep = Preprocessing.from_json(found.provenance["preprocessing"], json_path)
            meet(found.graph.layout.classes, prep)
        return artifact
    started = time.perf_counter()
    require_writable(json_path)
    model = quantized_model(options, loaded, meet)
    with whole_or_nothing(json_path, tensors):
        storage.save(artifact.folder, model)
    logger.info("quantize: %s (%.1f s)", json_path, time.perf_counter() - started)
    return artifact


def _is_model_unchanged(json_path: Path, options: QuantizeOptions) -> bool:
    """Whether a factory, whose fingerprint is that of its files, still makes the same model."""
    facts = read_json(json_path)["provenance"]
    return are_files_unchanged(facts) and traced_hash(options) in (None, facts.get(GRAPH))


def prepare(
    options: QuantizeOptions, model: "LoadedModel | None" = None, meet: "Meet | None" = None
) -> "tuple[Graph, Preprocessing, Pictures]":
    """Load the float graph, its input's meaning, and calibration pictures (saved if asked for)."""
    from vitq.compiler.stages.calibration import calibration_pictures, save_images
    from vitq.quantization.graph.tracing import trace
    from vitq.quantization.run.traced import check_traced

    if options.save_images is not None:
        require_writable(options.save_images / "x")
    loaded = model or load_float_model(options)
    prep = loaded.preprocessing
    graph = trace(loaded.module, prep.input_shape)
    if meet is not None:
        meet(graph.layout.classes, prep)
    pictures = calibration_pictures(options, graph, prep)
    check_traced(graph, loaded.module, pictures.pixels, prep.mean, prep.std)
    if options.module is None and is_onnx(options.model):
        _check_file(Path(options.model).expanduser(), loaded.module, pictures.pixels, prep)
    _say_strange_labels(pictures, graph.layout.classes)
    _say_memory(options, graph, len(pictures))
    if options.save_images is not None:
        save_images(pictures.pixels, options.save_images)
    return graph, prep, pictures


def _check_file(path: Path, module: Any, pixels: UInt8Array, prep: "Preprocessing") -> None:
    """Hold an ONNX file's module against the file in onnxruntime."""
    from vitq.compiler.foreign.network.parity import check_network
    from vitq.quantization.run.traced import COMPARED, normalized

    check_network(module, path, normalized(pixels[:COMPARED], prep.mean, prep.std))


def _say_strange_labels(pictures: "Pictures", outputs: int | None) -> None:
    """Warn of calibration pictures of classes that the model does not have."""
    largest = -1 if pictures.labels is None else int(pictures.labels.max(initial=-1))
    if outputs is not None and largest >= outputs:
        logger.warning(
            "WARNING: %s: a calibration picture has label %d, but the model has %d outputs: are "
            "these pictures of another data set?",
            *(pictures.source, largest, outputs),
        )


def _say_memory(options: QuantizeOptions, graph: "Graph", number: int) -> None:
    """Warn before long work that the system may end it: nothing is said at a kill."""
    from vitq.quantization.ranges.memory import walk_bytes

    needed, free = walk_bytes(graph, number, options.method), free_memory()
    if free is None or needed < free:
        return
    fewer = max(1, number * free // (2 * needed))
    logger.warning(
        "WARNING: method %s holds values of all %d calibration pictures, about %.1f GiB, and %.1f "
        "GiB of memory are free: the system may end this: take --calib-count %d, or --method "
        "minmax, which streams them",
        *(options.method.name, number, needed / 2**30, free / 2**30, fewer),
    )


def _check_learned(options: QuantizeOptions, model: "LoadedModel") -> None:
    """Notice weights that are random without the user's wish, as far as no file was loaded."""
    from vitq.quantization.model.randomness import check_learned

    if options.random_weights is not None or options.weights is not None:
        return
    is_made_again = options.module is None and is_factory(options.model)
    check_learned(options.model, model.module, is_made_again)


def quantized_model(
    options: QuantizeOptions,
    before: Iterable[str] | None = None,
    meet: "Meet | None" = None,
) -> "QuantizedModel":
    """Return what the stage writes, without writing it.

    Args:
        options: of the stage.
        before: names of the modules that were loaded before a factory was; None for now.
        meet: see `quantize`.
    """
    from vitq.compiler.stages.held_out import check_held_out, hold_out
    from vitq.compiler.stages.overlap import SEEN, seen
    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.graph.class_maps import append_argmax, check_maps
    from vitq.quantization.graph.identity import graph_hash, module_hash
    from vitq.quantization.plan.output import Output

    # Hashes of what goes in come before the long work, amid which a file may be edited.
    wanted, loaded = quantize_fingerprint(options), set(before or sys.modules)
    files = file_hashes(used_weights(options))
    model = load_float_model(options)
    _check_learned(options, model)
    graph, prep, pictures = prepare(options, model, meet)
    hashes = {GRAPH: graph_hash(graph), STATE: module_hash(model.module), FILES: files}
    sources = loaded_hashes(options.model, loaded)
    held = hold_out(options, graph, prep, pictures)
    decided = held.pixels[: None if options.max_drop is not None and held.kind == "others" else 0]
    if options.output is Output.ARGMAX:
        check_maps(graph)
    graph, recipe, judged, bound = _quantized(options, graph, prep, pictures, held)
    provenance = {
        "fingerprint": wanted,
        "model": options.model,
        "weights": None if options.weights is None else str(options.weights.resolve()),
        "weights_key": options.weights_key,
        "num_classes": options.num_classes,
        "model_kwargs": dict(options.model_kwargs),
        "output_features": list(options.output_features),
        "output": options.output.value,
        "random_weights": options.random_weights,
        "calibration": {
            "source": pictures.source,
            "pictures": len(pictures),
            **described_calibration(options),
        },
        SEEN: seen(options.calib, pictures.pixels, decided),
        "held_out": check_held_out(options, recipe, graph, held, judged),
        **bound,
        "recipe": recipe.to_json(),
        "method": options.method.name,
        "nonlinear": recipe.nonlinear,
        "input_shape": list(prep.input_shape),
        "mean": list(prep.mean),
        "std": list(prep.std),
        "preprocessing": prep.to_json(),
        "versions": versions(("torch", "timm", "numpy")),
        "command": " ".join(sys.argv),
        **hashes,
        **sources,
        **given_hash(options.module),
    }
    if options.output is Output.ARGMAX:
        append_argmax(graph)
    return QuantizedModel(graph, pictures.pixels[:SAMPLE_PICTURES], provenance)


def _quantized(
    options: QuantizeOptions,
    graph: "Graph",
    prep: "Preprocessing",
    pictures: "Pictures",
    held: "HeldOut",
) -> "tuple[Graph, Recipe, Judgement | None, dict[str, Any]]":
    """Quantize, within a bound if there is one.

    Returns:
        The graph, its recipe, how close it is if that is known, and the bound's provenance.
    """
    import torch

    from vitq.quantization.ranges.calibrate import quantize_graph, rewrite

    method, pixels = chosen_method(options), torch.from_numpy(pictures.pixels)

    def quantize_at(recipe: "Recipe", given: "Graph") -> "Graph":
        return quantize_graph(given, pixels, recipe, method, prep.mean, prep.std, progress_bar)

    if options.max_drop is None:
        return quantize_at(options.recipe, graph), options.recipe, None, {}
    from vitq.compiler.stages.max_drop import Given, quantize_within

    shape = copy.deepcopy(graph)
    rewrite(shape, options.recipe.nonlinear, prep.mean, prep.std)
    found = quantize_within(
        Given(
            options,
            graph,
            shape,
            prep,
            pictures,
            method,
            held,
            lambda recipe: quantize_at(recipe, copy.deepcopy(graph)),
        )
    )
    return found.graph, found.recipe, found.found, {"max_drop": found.facts}


def chosen_method(options: QuantizeOptions) -> Method:
    """Return the method; pictures that were made from the model take more damping."""
    if options.calib not in GENERATED:
        return options.method
    return replace(options.method, damping=DAMPING_MADE)
