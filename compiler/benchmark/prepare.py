"""What contestants load, built once and kept beside the artifact.

    <artifact>/benchmark/<what>-b<batch>-<hash>/<file>

The hash covers all that goes in. A folder is made under another name and renamed when complete.
Functions here run in a process of their own, so that neither their memory nor a crash of a library
reaches the benchmark.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.support.artifacts import Artifact, file_hash, fingerprint, versions
from vitq.compiler.target.choice import get_target
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError

FOLDER = "benchmark"
OPSET = 20
"""The first opset with a single Gelu operator."""
CALIBRATION_PICTURES = 8


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        artifact: the quantized and exported model.
        target: of the integer library.
        batch: static batch size.
    """

    artifact: Artifact
    target: str
    batch: int


def vitq_tuned(task: Task) -> Path:
    """Return the target's folder."""
    return compile_for(task, tuned=True)


def vitq_untuned(task: Task) -> Path:
    """Return the folder of the library with default schedules."""
    return compile_for(task, tuned=False)


def compile_for(task: Task, tuned: bool) -> Path:
    """Compile, unless it is up to date."""
    from vitq.compiler.stages.compile import CompileOptions, compile_model

    options = CompileOptions(target=get_target(task.target), batch=task.batch, tuned=tuned)
    return compile_model(task.artifact.folder, options)


def torch_float(task: Task) -> Path:
    """Nothing to build; refused where the float model is not known."""
    from vitq.compiler.stages.float_reference import float_model

    _require_own(task)
    float_model(task.artifact.folder)
    return task.artifact.folder


def own_qdq(task: Task) -> Path:
    """Find the file that an earlier stage exported."""
    return task.artifact.onnx


def float_onnx(task: Task) -> Path:
    """Return the float model, as PyTorch's own exporter writes it."""
    _require_own(task)

    def build(folder: Path) -> None:
        import torch

        from vitq.compiler.stages.float_reference import float_model

        module, shape = float_model(task.artifact.folder)
        example = (torch.zeros(task.batch, *shape),)
        # One file: onnxruntime's quantizer refuses links to external data.
        torch.onnx.export(
            module,
            example,
            str(folder / "model.onnx"),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )

    return _cached(task, "float", ("torch", "onnx", "onnxscript"), build) / "model.onnx"


def onnxruntime_static(task: Task) -> Path:
    """Onnxruntime's own static quantization: uint8 activations, int8 weights per channel."""
    source = float_onnx(task)

    def build(folder: Path) -> None:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        ready = folder / "preprocessed.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(folder / "model.onnx"),
            _calibration_reader(task, ready),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        for path in folder.glob("preprocessed.onnx*"):
            path.unlink()

    return _cached(task, "onnxruntime-u8s8", ("onnxruntime", "torch"), build) / "model.onnx"


def _calibration_reader(task: Task, path: Path) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(path, load_external_data=False).graph.input[0].name
    batches = iter(calibration_batches(task))

    class Reader(CalibrationDataReader):
        """Hands out one batch after the other."""

        def get_next(self) -> dict[str, Any] | None:
            """Return the next feed, or None at the end."""
            batch = next(batches, None)
            return None if batch is None else {name: batch}

    return Reader()


def openvino_nncf(task: Task) -> Path:
    """NNCF's post-training quantization for transformers, as OpenVINO IR."""
    source = float_onnx(task)

    def build(folder: Path) -> None:
        import nncf
        import openvino

        batches = calibration_batches(task)
        quantized = nncf.quantize(
            openvino.Core().read_model(str(source)),
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
        openvino.save_model(quantized, str(folder / "model.xml"))

    return _cached(task, "openvino-nncf", ("openvino", "nncf", "torch"), build) / "model.xml"


def tvm_float(task: Task) -> Path:
    """Return the float export compiled by TVM."""
    source = float_onnx(task)

    def build(folder: Path) -> None:
        from vitq.compiler.benchmark.tvm_float import build_float_library

        build_float_library(source, get_target(task.target), folder / "model.so")

    own = (Path(__file__).with_name("tvm_float.py"),)
    return _cached(task, "tvm-float", ("apache-tvm", "torch"), build, own) / "model.so"


def pictures(task: Task, count: int) -> tuple[UInt8Array, FloatArray]:
    """Return the same pictures for everyone: of the quantizer's sample, again and again.

    Args:
        task: whose model.
        count: how many.

    Returns:
        (count, C, H, W): uint8 pixels, and normalized float32 for models that take floats. A
        foreign model gets seeded noise in both forms.
    """
    if task.artifact.is_foreign:
        from vitq.compiler.codegen.importing import read_onnx

        dims = read_onnx(task.artifact.onnx).graph.input[0].type.tensor_type.shape.dim
        shape = (count, *(dim.dim_value for dim in dims[1:]))
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return pixels, (pixels / np.float32(255)).astype(np.float32)
    from vitq.quantization.graph import artifact as storage

    own = storage.load(task.artifact.folder)
    repeats = -(-count // len(own.sample))
    pixels = np.ascontiguousarray(np.concatenate([own.sample] * repeats)[:count])
    mean, std = (np.float32(own.provenance[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    return pixels, ((pixels / np.float32(255) - mean) / std).astype(np.float32)


def calibration_batches(task: Task) -> list[FloatArray]:
    """Make normalized pictures in batches of the static size."""
    count = -(-CALIBRATION_PICTURES // task.batch) * task.batch
    return np.split(pictures(task, count)[1], count // task.batch)


def _require_own(task: Task) -> None:
    if task.artifact.is_foreign:
        raise VitqError("the float model behind a QDQ file from elsewhere is unknown")


def _cached(
    task: Task,
    what: str,
    packages: tuple[str, ...],
    build: Callable[[Path], None],
    sources: tuple[Path, ...] = (),
) -> Path:
    """Return the folder that `build` fills, unless its inputs did not change."""
    key = fingerprint({
        "quantize": file_hash(task.artifact.folder / "quantize.json"),
        "batch": task.batch,
        "target": task.target,
        "source": [file_hash(Path(__file__)), *map(file_hash, sources)],
        "versions": versions(packages),
    })
    prefix = f"{what}-b{task.batch}-"
    root = task.artifact.folder / FOLDER
    folder = root / f"{prefix}{key[:12]}"
    if folder.is_dir():
        return folder
    temporary = root / f".{folder.name}.{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        build(temporary)
        for stale in root.glob(f"{prefix}*"):
            shutil.rmtree(stale)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
