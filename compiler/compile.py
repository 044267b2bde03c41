"""Stage 3: ``model.onnx`` becomes an integer-only library for a target.

    ONNX -> Relax -> relay_passes (integer-only, ranges proven) -> kernels -> model.so

Also takes a foreign QDQ file: its artifact then has no quantizer's graph, and the interpreter of
the integer module stands in for the reference.
"""

import logging
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from compiler.artifacts import (
    GOLDEN_NAME,
    LIBRARY_NAME,
    METADATA_NAME,
    Artifact,
    file_hash,
    fingerprint,
    is_current,
    open_artifact,
    source_hash,
    versions,
    write_json,
)
from compiler.targets import Target, get_target
from numerics.arrays import IntArray, UInt8Array
from numerics.errors import VitqError
from numerics.files import write_atomically
from quantization.recipe import Nonlinear as NonlinearName

logger = logging.getLogger(__name__)

PACKAGES = ("numerics", "quantization", "relay_passes", "compiler")
FOREIGN_SAMPLE = 4
SUPPORTED_ONNX_OPS = frozenset(
    "Add Cast Clip Concat Constant ConstantOfShape Conv DequantizeLinear Div Equal Erf Exp Expand "
    "Flatten Gather Gelu Gemm Identity LayerNormalization MatMul Mul Pow QuantizeLinear ReduceMax "
    "ReduceMean ReduceSum Reshape Shape Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose "
    "Unsqueeze Where".split()
)


@dataclass(frozen=True)
class CompileOptions:
    """What decides the library beside the model.

    Attributes:
        target: name in the table of targets.
        batch: static batch size.
        mean: of a foreign model that takes normalized floats.
        std: likewise.
        nonlinear: overrides the file's own metadata; needed for none of ours.
        debug_dump: folder for the IR after each pass.
        artifacts: root folder, for foreign models.
    """

    target: str = "cpu"
    batch: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    nonlinear: NonlinearName | None = None
    debug_dump: Path | None = None
    artifacts: Path = Path("artifacts")

    def __post_init__(self) -> None:
        """Refuse a batch that is none."""
        if self.batch < 1:
            raise VitqError(f"batch {self.batch}: give at least 1")


def compile_model(source: Path, options: CompileOptions) -> Path:
    """Run the stage, unless its inputs did not change.

    Args:
        source: an artifact's folder, or a QDQ ``.onnx`` from elsewhere.
        options: target, batch and what a foreign file does not say.

    Returns:
        The target's folder.

    Raises:
        VitqError: not an ONNX file, unsupported operators, float operators left, an accumulator
            that could overflow, an unknown target.
    """
    target = get_target(options.target)
    artifact = _foreign_artifact(source, options) if source.is_file() else open_artifact(source)
    if not artifact.onnx.is_file():
        raise VitqError(f"{artifact.folder} has no {artifact.onnx.name}: run export first")
    folder = artifact.target_folder(options.target, options.batch)
    wanted = _fingerprint(artifact, target, options)
    json_path = folder / METADATA_NAME
    if is_current(json_path, wanted, folder / LIBRARY_NAME, folder / GOLDEN_NAME):
        logger.info("compile: unchanged, %s is up to date", folder / LIBRARY_NAME)
        return folder
    started = time.perf_counter()
    _compile(artifact, target, options, folder, wanted)
    logger.info("compile: %s (%.1f s)", folder / LIBRARY_NAME, time.perf_counter() - started)
    return folder


def _foreign_artifact(path: Path, options: CompileOptions) -> Artifact:
    """An artifact around a QDQ file from elsewhere."""
    read_onnx(path)
    artifact = Artifact(options.artifacts / path.stem / "onnx")
    if artifact.onnx.resolve() != path.resolve():
        artifact.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, artifact.onnx)
    return artifact


def read_onnx(path: Path) -> Any:
    """Read and check an ONNX file.

    Raises:
        VitqError: not ONNX, damaged, or with operators that no pass understands (all listed).
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VitqError(f"{path} is not a readable ONNX file (truncated?): {line}") from error
    ops = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in model.graph.node
    )
    unknown = sorted((op, count) for op, count in ops.items() if op not in SUPPORTED_ONNX_OPS)
    if unknown:
        listed = ", ".join(f"{op} (x{count})" for op, count in unknown)
        raise VitqError(f"{path} uses operators that are not supported: {listed}")
    return model


def _compile(
    artifact: Artifact, target: Target, options: CompileOptions, folder: Path, wanted: str
) -> None:
    from tvm.relax.frontend.onnx import from_onnx

    from compiler.library import build_library
    from relay_passes.pipeline import Nonlinear, PassOptions, integerize

    model = read_onnx(artifact.onnx)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    nonlinear = Nonlinear(options.nonlinear or stored.get("vitq.nonlinear", "vitq"))
    shape = _input_shape(model, artifact.onnx, options.batch)
    name = model.graph.input[0].name
    imported = from_onnx(model, shape_dict={name: list(shape)})
    passes = PassOptions(mean=options.mean, std=options.std, nonlinear=nonlinear)
    integer = integerize(imported, passes, options.debug_dump)
    library = folder / LIBRARY_NAME
    build_library(integer.mod, target, library)
    pixels, codes = _golden(artifact, integer.mod, shape)
    buffer = BytesIO()
    np.savez_compressed(buffer, pixels=pixels, codes=codes)
    write_atomically(folder / GOLDEN_NAME, buffer.getvalue())
    output = integer.report.outputs[0]
    content = {
        "fingerprint": wanted,
        "target": target.name,
        "target_config": target.tvm_config(),
        "batch": options.batch,
        "inputs": [{"name": name, "shape": list(shape), "dtype": "uint8"}],
        "outputs": [
            {
                "name": model.graph.output[0].name,
                "shape": list(output.shape),
                "dtype": output.dtype,
                "scale": output.scale,
                "zero_point": output.zero_point,
            }
        ],
        "nonlinear": str(nonlinear),
        "integer_ops": _count_ops(integer.mod),
        "float_islands": [],
        "accumulators": [bound._asdict() for bound in integer.report.bounds],
        "metadata_props": stored,
        "sha256": {
            artifact.onnx.name: file_hash(artifact.onnx),
            LIBRARY_NAME: file_hash(library),
            GOLDEN_NAME: file_hash(folder / GOLDEN_NAME),
        },
        "size_bytes": library.stat().st_size,
        "versions": versions(("apache-tvm", "apache-tvm-ffi", "numpy", "onnx")),
        "command": " ".join(sys.argv),
    }
    write_json(folder / METADATA_NAME, content)


def _input_shape(model: Any, path: Path, batch: int) -> tuple[int, ...]:
    """(batch, C, H, W) of the one input."""
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise VitqError(f"{path} must have one input (pictures) and one output (logits)")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims]
    if len(sizes) != 4 or any(size < 1 for size in sizes[1:]):
        raise VitqError(f"{path}: the input must be (N, C, H, W) with fixed C, H and W")
    if sizes[0] not in (0, batch):
        raise VitqError(f"{path} has a fixed batch of {sizes[0]}: compile with --batch {sizes[0]}")
    return (batch, *sizes[1:])


def _golden(artifact: Artifact, mod: Any, shape: tuple[int, ...]) -> tuple[UInt8Array, IntArray]:
    """Raw input and integer output, from the reference where there is one."""
    from quantization import artifact as storage
    from quantization.reference import IntegerReference

    if (artifact.folder / storage.JSON_NAME).is_file():
        model = storage.load(artifact.folder)
        return model.sample, IntegerReference(model.graph)(model.sample).astype(np.int32)
    from relay_passes.interpreter import interpret

    batch = shape[0]
    count = -(-FOREIGN_SAMPLE // batch) * batch
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape[1:]), dtype=np.uint8)
    parts = [interpret(mod, [pixels[i : i + batch]])[0] for i in range(0, count, batch)]
    return pixels, np.concatenate(parts).astype(np.int32)


def _count_ops(mod: Any) -> dict[str, int]:
    """How often each operator occurs in an integer module."""
    from relay_passes.matching import op_name
    from relay_passes.rewriting import MAIN, bindings_of

    names = (op_name(binding.value) for binding in bindings_of(mod[MAIN]))
    return dict(sorted(Counter(name for name in names if name).items()))


def _fingerprint(artifact: Artifact, target: Target, options: CompileOptions) -> str:
    """Hash of all that goes in."""
    quantized = artifact.folder / "quantized.safetensors"
    return fingerprint({
        "onnx": file_hash(artifact.onnx),
        "quantized": file_hash(quantized) if quantized.is_file() else None,
        "target": [target.tvm_config(), target.features],
        "options": [options.batch, options.mean, options.std, options.nonlinear],
        "source": source_hash(PACKAGES),
        "versions": versions(("apache-tvm", "apache-tvm-ffi", "numpy", "onnx")),
    })
