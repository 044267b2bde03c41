"""Stage 3: ``model.onnx`` becomes an integer-only library for a target.

    ONNX -> Relax -> relay_passes (integer-only, ranges proven) -> kernels -> model.so

Also takes a foreign QDQ file: its artifact then has no quantizer's graph, and the interpreter of
the integer module stands in for the reference.
"""

import logging
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.importing import (
    ImportedModel,
    Meaning,
    import_model,
    interpreter_runner,
    read_onnx,
)
from vitq.compiler.codegen.pictures import input_of_file
from vitq.compiler.stages.foreign import foreign_artifact
from vitq.compiler.support.artifacts import (
    GOLDEN_NAME,
    LIBRARY_NAME,
    METADATA_NAME,
    QUANTIZE_NAME,
    TENSORS_NAME,
    Artifact,
    file_hash,
    fingerprint,
    is_current,
    open_artifact,
    read_json,
    source_hash,
    versions,
    whole_or_nothing,
    write_json,
)
from vitq.compiler.support.limits import LARGEST_BATCH, check_number
from vitq.compiler.support.locks import writing_to
from vitq.compiler.target.choice import NATIVE, get_target
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.log import find_log, log_hash
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.numerics.files import require_writable, write_atomically
from vitq.quantization.pictures.described import Described
from vitq.quantization.pictures.preprocessing import check_normalization

logger = logging.getLogger(__name__)

PACKAGES = ("numerics", "quantization", "relay_passes", "compiler")
FOREIGN_SAMPLE = 4


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """What decides the library beside the model.

    Attributes:
        target: what for.
        batch: static batch size.
        mean: of a foreign model that takes normalized floats.
        std: likewise.
        nonlinear: overrides the file's own metadata; needed for none of ours.
        pictures: how pictures become a foreign model's input.
        debug_dump: folder for the IR after each pass.
        artifacts: root folder, for foreign models.
        tuned: whether the kernels get the schedules that a tuning log knows.
        tuning_log: folder of that log; None for the shipped one of the target.
    """

    target: Target = field(default_factory=lambda: get_target(NATIVE))
    batch: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    nonlinear: Nonlinear | None = None
    pictures: Described = field(default_factory=Described)
    debug_dump: Path | None = None
    artifacts: Path = Path("artifacts")
    tuned: bool = True
    tuning_log: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a batch that is none, and a log that is not wanted."""
        check_number("batch", self.batch, 1, LARGEST_BATCH)
        if self.mean is not None and self.std is not None:
            check_normalization(self.mean, self.std)
        if self.tuning_log is not None and not self.tuned:
            raise VitqError("give --untuned or --tuning-log, not both")


def compile_model(source: Path, options: CompileOptions) -> Path:
    """Run the stage, unless its inputs did not change.

    Args:
        source: an artifact's folder, or a QDQ ``.onnx`` from elsewhere.
        options: target, batch and what a foreign file does not say.

    Returns:
        The target's folder.

    Raises:
        VitqError: not an ONNX file, unsupported operators, float operators left, an accumulator
            that could overflow.
    """
    target = options.target
    if not source.exists():
        raise VitqError(f"{source} does not exist: give an artifact's folder or a QDQ .onnx file")
    artifact = _foreign_artifact(source, options) if source.is_file() else open_artifact(source)
    if not artifact.onnx.is_file():
        raise VitqError(f"{artifact.folder} has no {artifact.onnx.name}: run export first")
    _require_exported(artifact)
    folder = artifact.target_folder(options.target.name, options.batch, options.tuned)
    log = find_log(target, options.tuned, options.tuning_log)
    wanted = _fingerprint(artifact, target, options, log)
    with writing_to(folder):
        json_path = folder / METADATA_NAME
        if is_current(json_path, wanted, folder / LIBRARY_NAME, folder / GOLDEN_NAME):
            logger.info("compile: unchanged, %s is up to date", folder / LIBRARY_NAME)
            return folder
        started = time.perf_counter()
        require_writable(folder / LIBRARY_NAME)
        if options.debug_dump is not None:
            require_writable(options.debug_dump / "x")
        _compile(artifact, target, options, log, wanted, source if source.is_file() else None)
        logger.info("compile: %s (%.1f s)", folder / LIBRARY_NAME, time.perf_counter() - started)
    return folder


def _foreign_artifact(path: Path, options: CompileOptions) -> Artifact:
    """Make an artifact around a QDQ file from elsewhere."""
    model = read_onnx(path)  # with its external data
    require_writable(options.artifacts / "x")
    return foreign_artifact(path, model.SerializeToString(), options.artifacts)


def _compile(
    artifact: Artifact,
    target: Target,
    options: CompileOptions,
    log: Path | None,
    wanted: str,
    called: Path | None,
) -> None:
    """Write the library and its golden file, and last the metadata; messages name `called`."""
    from vitq.compiler.codegen.library import build_library
    from vitq.compiler.tuning.schedules import open_schedules

    schedules = open_schedules(log, options.tuned)
    _require_own_nonlinear(artifact, options.nonlinear)
    given = Meaning(options.batch, options.mean, options.std, options.nonlinear)
    model = import_model(artifact.onnx, given, options.debug_dump, called)
    prep = input_of_file(model, options.pictures, called or artifact.onnx, artifact.is_foreign)
    folder = artifact.target_folder(options.target.name, options.batch, options.tuned)
    library, golden = folder / LIBRARY_NAME, folder / GOLDEN_NAME
    metadata = folder / METADATA_NAME
    with whole_or_nothing(metadata, library, golden):
        calls = build_library(model.integer.mod, target, library, schedules)
        logger.info("%s", schedules.summary())
        pixels, codes = _golden(artifact, model)
        buffer = BytesIO()
        np.savez_compressed(buffer, pixels=pixels, codes=codes)
        write_atomically(golden, buffer.getvalue())
        content = {
            "fingerprint": wanted,
            "target": target.name,
            "entry": target.entry,
            "target_config": target.tvm_config(),
            "architectures": list(target.gpu.architectures) if target.gpu else None,
            **_describe(model),
            "preprocessing": prep.to_json(),
            "kernel_calls": len(calls),
            "schedules": schedules.to_json(),
            "sha256": {path.name: file_hash(path) for path in _recorded(artifact, library, golden)},
            "size_bytes": library.stat().st_size,
            "versions": versions(("apache-tvm", "apache-tvm-ffi", "numpy", "onnx")),
            "command": " ".join(sys.argv),
        }
        write_json(metadata, content)


def _recorded(artifact: Artifact, *files: Path) -> list[Path]:
    """Return the files whose hashes the metadata keeps."""
    own = artifact.folder / TENSORS_NAME
    return [artifact.onnx, *files, *([own] if own.is_file() else [])]


def _require_exported(artifact: Artifact) -> None:
    """Refuse an ONNX file of an earlier quantize.

    Raises:
        VitqError: if there is one.
    """
    tensors = artifact.folder / TENSORS_NAME
    if artifact.is_foreign or not artifact.export_json.is_file() or not tensors.is_file():
        return
    known = read_json(artifact.export_json).get("quantized")
    if known is not None and known != file_hash(tensors):
        raise VitqError(f"{artifact.onnx} is of an earlier quantize: run export first")


def _require_own_nonlinear(artifact: Artifact, wanted: str | None) -> None:
    """Bind an artifact with a reference to the operators that it was quantized for."""
    if artifact.is_foreign or wanted is None:
        return
    own = read_json(artifact.folder / QUANTIZE_NAME)["provenance"]["nonlinear"]
    if wanted != own:
        raise VitqError(
            f"{artifact.folder} was quantized for nonlinear = {own}: quantize again for {wanted}"
        )


def _describe(model: ImportedModel) -> dict[str, Any]:
    """Return the part of the metadata that does not depend on the target."""
    from vitq.relay_passes.check_integer_only import float_islands

    outputs, meaning = model.integer.report.outputs, model.meaning
    return {
        "batch": meaning.batch,
        "inputs": [{"name": model.input_name, "shape": list(model.shape), "dtype": "uint8"}],
        "outputs": [
            {
                "name": name,
                "shape": list(output.shape),
                "dtype": output.dtype,
                "scale": output.scale,
                "zero_point": output.zero_point,
            }
            for name, output in zip(model.output_names, outputs, strict=True)
        ],
        "mean": meaning.mean,
        "std": meaning.std,
        "nonlinear": meaning.nonlinear,
        "integer_ops": _count_ops(model.integer.mod),
        "attention_codes": _attention_codes(model.integer.mod),
        "float_islands": float_islands(model.integer.mod),
        "accumulators": [bound._asdict() for bound in model.integer.report.bounds],
        "metadata_props": model.properties,
    }


def _golden(artifact: Artifact, model: ImportedModel) -> tuple[UInt8Array, IntArray]:
    """Raw input and integer output, from the reference where there is one."""
    if not artifact.is_foreign:
        from vitq.quantization.graph import artifact as storage
        from vitq.quantization.run.reference import IntegerReference

        own = storage.load(artifact.folder)
        return own.sample, IntegerReference(own.graph)(own.sample).astype(np.int32)
    shape = (FOREIGN_SAMPLE, *model.shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return pixels, interpreter_runner(model)(pixels).astype(np.int32)


def _attention_codes(mod: Any) -> dict[str, str]:
    """Return the codes of each attention's weights, by the name of the operator's result."""
    from vitq.numerics.attention import AttentionParams
    from vitq.numerics.log_codes import describe_codes
    from vitq.numerics.shiftmax import CodeParams
    from vitq.relay_passes.dialect import calls as dialect
    from vitq.relay_passes.dialect import names
    from vitq.relay_passes.expressions import MAIN, bindings_of, op_name

    found = {}
    for binding in bindings_of(mod[MAIN]):
        name = op_name(binding.value)
        if name in (names.ATTENTION, names.OFFSET_ATTENTION):
            p = AttentionParams(*dialect.scalars(binding.value)).codes
        elif name == names.SHIFTMAX_CODES:
            p = CodeParams(*dialect.scalars(binding.value))
        else:
            continue
        found[binding.var.name] = describe_codes(p)
    return found


def _count_ops(mod: Any) -> dict[str, int]:
    """How often each operator occurs in an integer module."""
    from vitq.relay_passes.expressions import MAIN, bindings_of, op_name

    called = (op_name(binding.value) for binding in bindings_of(mod[MAIN]))
    return dict(sorted(Counter(name for name in called if name).items()))


def _fingerprint(
    artifact: Artifact, target: Target, options: CompileOptions, log: Path | None
) -> str:
    """Hash of all that goes in."""
    quantized = artifact.folder / TENSORS_NAME
    return fingerprint({
        "onnx": file_hash(artifact.onnx),
        "quantized": file_hash(quantized) if quantized.is_file() else None,
        "target": [target.tvm_config(), target.features, target.gpu],
        "options": [options.batch, options.mean, options.std, options.nonlinear, options.tuned],
        "pictures": asdict(options.pictures),
        "tuning_log": log_hash(log),
        "source": source_hash(PACKAGES),
        "versions": versions(("apache-tvm", "apache-tvm-ffi", "numpy", "onnx")),
    })
