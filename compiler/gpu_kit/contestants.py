"""What vitq is compared with on a GPU: PyTorch in several forms, TVM, onnxruntime where installed.

Each contestant is a function that queues one batch on the GPU, on input that is there already.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .model import Model

Queue = Callable[[], Any]
WARM_UP = 5
PEAK_SIZE = 8192
REPEATS = 10
"""Calls in a graph."""


def torch_contestants(
    name: str, batch: int, size: int, compiled: bool
) -> dict[str, Callable[[], Queue]]:
    """PyTorch's: made when called, because each takes memory and time.

    Args:
        name: of a timm model; random weights, whose values do not matter for time.
        batch: pictures.
        size: edge of a picture.
        compiled: whether ``torch.compile`` takes part, which takes a minute.
    """
    import timm
    import torch

    def make(dtype: Any, tf32: bool, graph: bool, optimize: bool) -> Queue:
        model = timm.create_model(name, pretrained=False, img_size=size).eval().cuda().to(dtype)
        x = torch.randn(batch, 3, size, size, device="cuda", dtype=dtype)
        if optimize:
            model = torch.compile(model, mode="reduce-overhead")  # records CUDA graphs itself

        def run() -> Any:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            with torch.inference_mode():
                return model(x)

        return _as_graph(run) if graph else run

    half, single = torch.float16, torch.float32
    found = {
        "torch-fp32": lambda: make(single, False, True, False),
        "torch-tf32": lambda: make(single, True, True, False),
        "torch-fp16": lambda: make(half, False, True, False),
        "torch-fp16-eager": lambda: make(half, False, False, False),
    }
    if compiled:
        found["torch-fp16-compile"] = lambda: make(half, False, False, True)
    return found


def _as_graph(run: Queue) -> Queue:
    """Record a CUDA graph; its replay keeps alive what `run` refers to, which the graph reads."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    kept = run, result

    def replay() -> Any:
        graph.replay()
        return kept

    return replay


def library_contestant(folder: Path, libraries: Path, pixels: Any) -> Queue:
    """Load a library of TVM's: vitq's, or a float model's."""
    model = Model(folder, libraries)
    model.set_input(pixels)
    return model.invoke


def onnxruntime_contestants(path: Path, batch: int, size: int) -> dict[str, Callable[[], Queue]]:
    """Return the QDQ file in onnxruntime's GPU providers, as far as they are installed."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    names = {
        "CUDAExecutionProvider": "onnxruntime-qdq",
        "TensorrtExecutionProvider": "tensorrt-qdq",
    }

    def make(provider: str) -> Queue:
        import numpy as np

        session = onnxruntime.InferenceSession(str(path), providers=[provider])
        binding, first = session.io_binding(), session.get_inputs()[0]
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(pixels, "cuda", 0)
        binding.bind_ortvalue_input(first.name, value)
        binding.bind_output(session.get_outputs()[0].name, "cuda")
        return lambda: session.run_with_iobinding(binding)

    there = set(onnxruntime.get_available_providers())
    return {label: partial(make, name) for name, label in names.items() if name in there}


def int_mm_times(products: list[list[int]], time_ms: Callable[[Queue], float]) -> dict[str, float]:
    """Milliseconds of ``torch._int_mm`` for each (M, N, K); NaN where it refuses the shape.

    As a graph of `REPEATS` calls: a call alone is mostly PyTorch's own overhead.
    """
    import torch

    def repeated(a: Any, b: Any) -> list[Any]:
        return [torch._int_mm(a, b) for _ in range(REPEATS)]

    found = {}
    for rows, columns, inner in products:
        a = torch.randint(-128, 128, (rows, inner), device="cuda", dtype=torch.int8)
        b = torch.randint(-128, 128, (columns, inner), device="cuda", dtype=torch.int8).t()
        try:
            many = _as_graph(partial(repeated, a, b))
            found[f"{rows}x{columns}x{inner}"] = time_ms(many) / REPEATS
        except RuntimeError:
            found[f"{rows}x{columns}x{inner}"] = float("nan")
    return found


def peak_macs_per_s(time_ms: Callable[[Queue], float]) -> float:
    """Return the int8 tensor-core rate measured on this GPU: a large ``torch._int_mm``."""
    key = [PEAK_SIZE, PEAK_SIZE, PEAK_SIZE]
    (milliseconds,) = int_mm_times([key], time_ms).values()
    return PEAK_SIZE**3 / milliseconds * 1000
