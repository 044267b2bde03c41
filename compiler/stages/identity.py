"""What a quantized model was made from: hashes of everything that decides it.

A named model is decided by its name, its arguments and its files, which are hashed without loading
torch. A factory may read anything (other files, the environment, the network): what counts is the
model that it returns, so `traced_hash` builds and traces it, and hashes graph and weights.
"""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vitq.compiler.stages.held_out import bound_files
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import (
    file_hash,
    fingerprint,
    source_hash,
    versions,
)
from vitq.compiler.support.embedded import EMBEDDED_MODELS, EMBEDDED_PICTURES, GENERATED
from vitq.quantization.model.factories import factory_files, loaded_files
from vitq.quantization.model.given import GivenModel
from vitq.quantization.model.names import CONFIG_NAME, is_factory, is_onnx, model_folder
from vitq.quantization.model.weight_files import weight_files
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.processors import beside

IN_MEMORY = "module"
"""In the provenance of a model that was in hand: the hash of its weights."""
FILES, SOURCES = "files", "sources"
"""In the provenance: file -> hash, of weights and configurations, and of a factory's code."""
GRAPH, STATE = "graph", "state"
"""In the provenance: hash of the traced graph, and of the float model's weights."""
UNHASHED = ("artifacts", "save_images", "module")
"""Options that decide nothing, or whose content is hashed instead."""
PACKAGES = ("numerics", "quantization", "models")
LISTED = 4


def quantize_fingerprint(options: QuantizeOptions) -> str:
    """Hash of all that goes in, without loading torch."""
    return fingerprint({
        "options": {
            **{field.name: getattr(options, field.name) for field in fields(options)},
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
        "weights": list(file_hashes(used_weights(options)).values()),
        "weights_key": options.weights_key,
        "arguments": options.model_arguments,
        "outputs": list(options.output_features),
        "random_weights": options.random_weights,
        "factory": _factory_hashes(options.model),
        "preprocessing": asdict(options.described),
        "beside": _beside(options),
        **given_hash(options.module),
    }


def used_weights(options: QuantizeOptions) -> list[Path]:
    """Return the files that decide a named model's structure and weights, beside its code."""
    if options.module is None and is_onnx(options.model):
        from vitq.compiler.foreign.network.reading import files_of

        return files_of(Path(options.model).expanduser())
    folder = None if options.module is not None else model_folder(options.model)
    configuration = [] if folder is None else [folder / CONFIG_NAME]
    place = options.weights
    if place is None and options.random_weights is None:
        place = folder
    return configuration + ([] if place is None else list(weight_files(place)))


def _beside(options: QuantizeOptions) -> str | None:
    """Hash of the configuration of the input that lies beside the weights."""
    files = used_weights(options)
    found = beside(files[-1]) if files else None
    return None if found is None else file_hash(found)


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, by their whole names."""
    return {str(path.resolve()): file_hash(path) for path in paths}


def _calibration_content(options: QuantizeOptions) -> list[str] | str | None:
    from vitq.quantization.pictures.pictures import picture_files

    if options.calib is None and options.model not in EMBEDDED_MODELS:
        return None  # refused later, behind what may be wrong with the model itself
    source = options.calibration_source
    if isinstance(source, GivenPictures):
        return source.digest
    if source in EMBEDDED_PICTURES or source in GENERATED:
        return source
    files = picture_files(source, options.calib_count, options.calib_seed)
    if options.max_drop is not None and Path(source).is_dir():
        files += bound_files(Path(source), options.calib_count)
    return [file_hash(path) for path in files if path.is_file()]


def described_calibration(options: QuantizeOptions) -> dict[str, Any]:
    """Record the calibration pictures, to tell later whether they changed; empty without files."""
    source = options.calibration_source
    if isinstance(source, GivenPictures) or source in EMBEDDED_PICTURES or source in GENERATED:
        return {}
    return {"record": calibration_record(source, options.calib_count, options.calib_seed)}


def calibration_record(source: str, count: int, seed: int) -> dict[str, Any]:
    """Record a source of calibration pictures, to tell later whether it changed.

    Args:
        source: folder or ``.npy``.
        count: how many pictures were taken.
        seed: which ones.

    Returns:
        Where it lies, the draw, and a hash of all files that decide the pictures.
    """
    from vitq.quantization.pictures.pictures import picture_files

    hashes = [file_hash(path) for path in picture_files(source, count, seed)]
    return {
        "path": str(Path(source).resolve()),
        "count": count,
        "seed": seed,
        "files": fingerprint({"files": hashes}),
    }


def _name(calib: str | GivenPictures | None) -> str | None:
    """Return what a source is called; pictures in hand are told apart by their content."""
    return calib.source if isinstance(calib, GivenPictures) else calib


def given_hash(module: GivenModel | None) -> dict[str, str]:
    """Hash a model in hand: no file or name holds it."""
    return {} if module is None else {IN_MEMORY: module.digest}


def _factory_hashes(model: str) -> dict[str, str] | None:
    """Hash of each source file that a factory is made of, as far as its imports can be read."""
    if not is_factory(model):
        return None
    return {name: file_hash(path) for name, path in factory_files(model).items()}


def traced_hash(options: QuantizeOptions) -> str | None:
    """Hash of the graph and weights of a factory's model; None for any other model."""
    if not is_factory(options.model):
        return None
    from vitq.compiler.stages.float_model import load_float_model
    from vitq.quantization.graph.identity import graph_hash
    from vitq.quantization.graph.tracing import trace

    loaded = load_float_model(options)
    return graph_hash(trace(loaded.module, loaded.preprocessing.input_shape))


def loaded_hashes(model: str, before: set[str]) -> dict[str, dict[str, str]]:
    """For the provenance: hash of each source file that a factory did load."""
    if not is_factory(model):
        return {}
    files = {**factory_files(model), **loaded_files(model, before)}.values()
    return {SOURCES: {str(path): file_hash(path) for path in sorted(set(files))}}


def are_files_unchanged(facts: dict[str, Any]) -> bool:
    """Whether the files that a factory had loaded are what they were.

    Args:
        facts: a provenance.
    """
    sources = facts.get(SOURCES, {})
    return all(Path(name).is_file() and file_hash(Path(name)) == sources[name] for name in sources)


def changed_files(facts: dict[str, Any]) -> list[str]:
    """Return the files behind a float model that are others now; one that is gone is none.

    Args:
        facts: a provenance.
    """
    recorded = {**facts.get(FILES, {}), **facts.get(SOURCES, {})}
    return [
        name
        for name, digest in recorded.items()
        if Path(name).is_file() and file_hash(Path(name)) != digest
    ]


def describe_changed(names: Iterable[str]) -> str:
    """Say that files changed, and what to do."""
    found = list(names)
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return (
        f"{', '.join(found[:LISTED])}{more} changed since quantize: this library is of what it "
        "was; run quantize, export and compile again"
    )
