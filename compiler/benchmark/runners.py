"""How each kind of contestant is loaded, inside its worker. One call = one batch, in to out."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Spec = dict[str, Any]
"""``path``, ``artifact``, ``inputs`` (``.npz`` with pixels and real), ``threads``."""
Runner = Callable[[], Any]

_IMPORTS = {
    "vitq": "tvm",
    "tvm": "tvm",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
}


def warm_imports(loader: str) -> None:
    """Import a loader's package, so that its memory is known apart from the model's."""
    if loader in _IMPORTS:
        importlib.import_module(_IMPORTS[loader])


def _inputs(spec: Spec) -> tuple[Any, Any]:
    """(B, C, H, W): uint8 pixels, and the same pictures normalized, float32."""
    with np.load(spec["inputs"]) as file:
        return file["pixels"], file["real"]


def load_vitq(spec: Spec) -> Runner:
    """Return the integer library, as `vitq run` calls it; ``path`` is the target's folder."""
    from vitq.compiler.codegen.compiled import open_compiled

    pixels, _ = _inputs(spec)
    library = open_compiled(Path(spec["path"])).library(spec["threads"])
    return lambda: library(pixels)


def load_tvm(spec: Spec) -> Runner:
    """Load a float library of TVM's virtual machine."""
    import tvm
    from tvm import relax

    _, real = _inputs(spec)
    module = tvm.runtime.load_module(str(Path(spec["path"]).resolve()))
    run = relax.VirtualMachine(module, tvm.cpu())["main"]
    return lambda: run(tvm.runtime.tensor(real)).numpy()


def load_onnxruntime(spec: Spec) -> Runner:
    """Load an ONNX file, all graph optimizations; takes pixels or reals, as the file says."""
    import onnxruntime

    pixels, real = _inputs(spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        spec["path"], options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0]
    feed = {entry.name: pixels if "uint8" in entry.type else real}
    return lambda: session.run(None, feed)


def load_openvino(spec: Spec) -> Runner:
    """Load an OpenVINO model for latency: one stream, the default precision hint."""
    import openvino

    _, real = _inputs(spec)
    hints = {"INFERENCE_NUM_THREADS": spec["threads"], "NUM_STREAMS": 1, **spec.get("hints", {})}
    compiled = openvino.Core().compile_model(spec["path"], "CPU", hints)
    request = compiled.create_infer_request()
    return lambda: request.infer({0: real})


def load_torch(spec: Spec) -> Runner:
    """Return the original module, eager."""
    import torch

    from vitq.compiler.stages.float_reference import float_model

    _, real = _inputs(spec)
    torch.set_num_threads(spec["threads"])
    module, _ = float_model(Path(spec["artifact"]))
    batch = torch.from_numpy(real)

    def run() -> Any:
        with torch.inference_mode():
            return module(batch)

    return run


LOADERS: dict[str, Callable[[Spec], Runner]] = {
    "vitq": load_vitq,
    "tvm": load_tvm,
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
    "torch": load_torch,
}
