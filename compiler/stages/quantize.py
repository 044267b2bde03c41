"""Stage 1: a PyTorch model and pictures become ``quantize.json`` and its safetensors."""

import logging
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import (
    Artifact,
    begin_stage,
    file_hash,
    fingerprint,
    is_current,
    read_json,
    source_hash,
    versions,
)
from vitq.compiler.support.embedded import EMBEDDED_CALIBRATION, EMBEDDED_MODEL, GENERATED
from vitq.compiler.support.locks import alone
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.factories import factory_files, is_factory, loaded_files
from vitq.quantization.graph.given import GivenModel, GivenPictures
from vitq.quantization.graph.processors import beside
from vitq.quantization.plan.methods import DAMPING_MADE, Method

if TYPE_CHECKING:
    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.graph.decoding import Pictures
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.graph.models import LoadedModel
    from vitq.quantization.graph.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

SAMPLE_PICTURES = 8
IN_MEMORY = "module"
"""In the provenance of a model that was in hand: the hash of its weights."""
UNHASHED = ("artifacts", "save_images", "module")
"""Options that decide nothing, or whose content is hashed instead."""
PACKAGES = ("numerics", "quantization", "models")


@alone(lambda options: options.artifact.folder)
def quantize(options: QuantizeOptions) -> Artifact:
    """Run the stage, unless its inputs did not change.

    Args:
        options: what to quantize and how.

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
    if is_current(json_path, wanted, tensors) and _are_sources_unchanged(json_path):
        logger.info("quantize: unchanged, %s is up to date", json_path)
        if options.save_images is not None:
            prepare(options)
        return artifact
    started = time.perf_counter()
    model = quantized_model(options)
    begin_stage(json_path)
    storage.save(artifact.folder, model)
    logger.info("quantize: %s (%.1f s)", json_path, time.perf_counter() - started)
    return artifact


def prepare(options: QuantizeOptions) -> "tuple[Graph, Preprocessing, Pictures]":
    """Load the float graph, its input's meaning, and calibration pictures (saved if asked for)."""
    from vitq.compiler.stages.calibration import calibration_pictures, save_images
    from vitq.quantization.graph.tracing import trace

    loaded = load_float_model(options)
    prep = loaded.preprocessing
    graph = trace(loaded.module, prep.input_shape)
    pictures = calibration_pictures(options, graph, prep)
    if options.save_images is not None:
        save_images(pictures.pixels, options.save_images)
    return graph, prep, pictures


def quantized_model(options: QuantizeOptions) -> "QuantizedModel":
    """Return what the stage writes, without writing it."""
    import torch

    from vitq.quantization.graph.artifact import QuantizedModel
    from vitq.quantization.ranges.calibrate import quantize_graph

    # Hashes of what goes in come before the long work, amid which a file may be edited.
    wanted, loaded = quantize_fingerprint(options), set(sys.modules)
    graph, prep, pictures = prepare(options)
    sources = _loaded_hashes(options.model, loaded)
    recipe = options.recipe
    pixels = torch.from_numpy(pictures.pixels)
    quantize_graph(graph, pixels, recipe, chosen_method(options), prep.mean, prep.std, progress_bar)
    provenance = {
        "fingerprint": wanted,
        "model": options.model,
        "weights": None if options.weights is None else str(options.weights.resolve()),
        "random_weights": options.random_weights,
        "calibration": {"source": pictures.source, "pictures": len(pictures)},
        "recipe": recipe.to_json(),
        "method": options.method.name,
        "nonlinear": recipe.nonlinear,
        "input_shape": list(prep.input_shape),
        "mean": list(prep.mean),
        "std": list(prep.std),
        "preprocessing": prep.to_json(),
        "versions": versions(("torch", "timm", "numpy")),
        "command": " ".join(sys.argv),
        **sources,
        **_given_hash(options.module),
    }
    return QuantizedModel(graph, pictures.pixels[:SAMPLE_PICTURES], provenance)


def chosen_method(options: QuantizeOptions) -> Method:
    """Return the method; pictures that were made from the model take more damping."""
    if options.calib not in GENERATED:
        return options.method
    return replace(options.method, damping=DAMPING_MADE)


def load_float_model(
    options: QuantizeOptions, preprocessing: "Preprocessing | None" = None
) -> "LoadedModel":
    """Return the float model that the options name.

    Args:
        options: model, weights and what its input means.
        preprocessing: what its input means, where that is known already.
    """
    from vitq.quantization.graph.models import given_model, load_model

    said = preprocessing or options.described
    if options.module is not None:
        return given_model(options.model, options.module, said)
    return load_model(options.model, options.weights, options.random_weights, said)


def quantize_fingerprint(options: QuantizeOptions) -> str:
    """Hash of all that goes in, without loading torch."""
    return fingerprint({
        "options": {
            **vars(options),
            **dict.fromkeys(UNHASHED),
            "calib": _name(options.calib),
            "recipe": options.recipe.to_json(),
            "method": asdict(options.method),
        },
        "model": model_content(options),
        "calibration": _calibration_content(options),
        "source": source_hash(PACKAGES),
        "versions": versions(("torch", "timm", "numpy")),
    })


def model_content(options: QuantizeOptions) -> dict[str, Any]:
    """Return what decides the float model."""
    return {
        "model": options.model,
        "weights": _content(options.weights),
        "random_weights": options.random_weights,
        "factory": _factory_hashes(options.model),
        "preprocessing": asdict(options.described),
        "beside": _content(None if options.weights is None else beside(options.weights)),
        **_given_hash(options.module),
    }


def _content(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise VitqError(f"weights {path} do not exist")
    return file_hash(path)


def _calibration_content(options: QuantizeOptions) -> list[str] | str | None:
    from vitq.quantization.graph.pictures import picture_files

    if options.calib is None and options.model != EMBEDDED_MODEL:
        return None  # refused later, behind what may be wrong with the model itself
    source = options.calibration_source
    if isinstance(source, GivenPictures):
        return source.digest
    if source == EMBEDDED_CALIBRATION or source in GENERATED:
        return source
    seed = options.calib_seed
    return [file_hash(path) for path in picture_files(source, options.calib_count, seed)]


def _name(calib: str | GivenPictures | None) -> str | None:
    """Return what a source is called; pictures in hand are told apart by their content."""
    return calib.source if isinstance(calib, GivenPictures) else calib


def _given_hash(module: GivenModel | None) -> dict[str, str]:
    """Hash a model in hand: no file or name holds it."""
    return {} if module is None else {IN_MEMORY: module.digest}


def _factory_hashes(model: str) -> dict[str, str] | None:
    """Hash of each source file that a factory is made of, as far as its imports can be read."""
    if not is_factory(model):
        return None
    return {name: file_hash(path) for name, path in factory_files(model).items()}


def _loaded_hashes(model: str, before: set[str]) -> dict[str, dict[str, str]]:
    """For the provenance: hash of each source file that a factory did load."""
    if not is_factory(model):
        return {}
    files = {**factory_files(model), **loaded_files(model, before)}.values()
    return {"sources": {str(path): file_hash(path) for path in sorted(set(files))}}


def _are_sources_unchanged(json_path: Path) -> bool:
    """Whether the files that a factory had loaded are what they were."""
    sources = read_json(json_path)["provenance"].get("sources", {})
    return all(Path(name).is_file() and file_hash(Path(name)) == sources[name] for name in sources)
