"""The table of contestants: what each needs, what is built for it, how its worker loads it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitq.compiler.benchmark import prepare
from vitq.compiler.benchmark.prepare import Task


@dataclass(frozen=True)
class Contestant:
    """One entry of the table.

    Attributes:
        name: as in the results.
        loader: of `compiler.benchmark.runners.LOADERS`.
        prepare: builds what the worker loads, once; returns its path.
        packages: that must be installed.
        hints: passed to the loader.
        what: for a person.
    """

    name: str
    loader: str
    prepare: Callable[[Task], Path]
    packages: tuple[str, ...]
    what: str
    hints: dict[str, Any] = field(default_factory=dict)


_ENTRIES = (
    Contestant(
        "vitq-int8-tuned", "vitq", prepare.vitq_tuned, (), "the library that vitq compile makes"
    ),
    Contestant(
        "vitq-int8-untuned", "vitq", prepare.vitq_untuned, (), "the same, default schedules"
    ),
    Contestant(
        "tvm-fp32",
        "tvm",
        prepare.tvm_float,
        ("onnxscript",),
        "the float model through TVM, scheduled by compiler/benchmark/tvm_float.py",
    ),
    Contestant(
        "onnxruntime-fp32",
        "onnxruntime",
        prepare.float_onnx,
        ("onnxruntime", "onnxscript"),
        "PyTorch's own ONNX export",
    ),
    Contestant(
        "onnxruntime-int8-u8s8",
        "onnxruntime",
        prepare.onnxruntime_static,
        ("onnxruntime", "onnxscript"),
        "onnxruntime's quantize_static of that export, u8 x s8, per channel",
    ),
    Contestant(
        "onnxruntime-int8-qdq",
        "onnxruntime",
        prepare.own_qdq,
        ("onnxruntime",),
        "the QDQ file that vitq exports",
    ),
    Contestant(
        "openvino-fp32",
        "openvino",
        prepare.float_onnx,
        ("openvino", "onnxscript"),
        "the float export, inference precision float32",
        {"INFERENCE_PRECISION_HINT": "f32"},
    ),
    Contestant(
        "openvino-int8",
        "openvino",
        prepare.openvino_nncf,
        ("openvino", "nncf", "onnxscript"),
        "NNCF's quantization for transformers, default precision between the products",
    ),
    Contestant("torch-fp32", "torch", prepare.torch_float, ("torch",), "the original, eager"),
)
CONTESTANTS = {entry.name: entry for entry in _ENTRIES}
