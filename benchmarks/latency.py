"""Latency of a compiled library beside onnxruntime, interleaved on one pinned core.

    python -m benchmarks.latency artifacts/<model>/<recipe>-<method>/cpu [--json]

Rounds of all contestants in turn, so that drifts of the machine hit all alike: believe the ratios
of one run, not its absolute times. Batch and input are those of the library.

Notes (what was learned):

* Intel Cascade Lake class, 2.5 GHz: see the README's table for the figures.
* onnxruntime spins its threads between calls; with one thread and one pinned core it does not
  matter.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 10
ROUNDS = 60

Runner = Callable[[], Any]


def contestants(folder: Path) -> dict[str, Runner]:
    """The library and the same model in onnxruntime, float32 and QDQ."""
    from compiler.artifacts import open_artifact
    from compiler.run import open_compiled

    compiled = open_compiled(folder)
    pixels = np.random.default_rng(0).integers(0, 256, compiled.input_shape, dtype=np.uint8)
    artifact = open_artifact(folder)
    library = compiled.library(threads=1)
    float_path = _export_float(artifact.folder, compiled.batch)
    real = (pixels / np.float32(255)).astype(np.float32)
    return {
        "vitq-int8": lambda: library(pixels),
        "onnxruntime-fp32": _onnxruntime(float_path, real),
        "onnxruntime-int8-qdq": _onnxruntime(artifact.onnx, pixels),
    }


def _onnxruntime(path: Path, value: Any) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: value}
    return lambda: session.run(None, feed)


def _export_float(folder: Path, batch: int) -> Path:
    """The float model, as PyTorch's own exporter writes it."""
    import torch

    from compiler.evaluate import float_model

    module, shape = float_model(folder)
    path = Path(tempfile.mkdtemp()) / "float.onnx"
    example = torch.zeros(batch, *shape)
    torch.onnx.export(module, (example,), str(path), dynamo=True, opset_version=20, verbose=False)
    return path


def measure(runners: dict[str, Runner], rounds: int) -> list[dict[str, Any]]:
    """Interleaved rounds; a row of median, p10 and p90 in ms for each contestant."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for index in range(WARM_UP + rounds):
        for name, run in runners.items():
            started = time.perf_counter()
            run()
            if index >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - started))
    rows = []
    for name, values in times.items():
        p10, median, p90 = np.percentile(values, [10, 50, 90])
        row = {"name": name, "threads": 1, "median_ms": median, "p10_ms": p10, "p90_ms": p90}
        rows.append({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()})
    return rows


def main() -> None:
    """Parse, pin, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="a target's folder inside an artifact")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = measure(contestants(options.folder), options.rounds)
    if options.json:
        print(json.dumps({"machine": platform.processor(), "rows": rows}, indent=1))
        return
    base = rows[0]["median_ms"]
    for row in rows:
        ratio = base / row["median_ms"]
        print(
            f"{row['name']:22} {row['median_ms']:8.2f} ms  (p10 {row['p10_ms']:.2f}, "
            f"p90 {row['p90_ms']:.2f})  vitq / this = {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
