"""``python3 -m gpu_kit``: everything that a GPU is needed for, in one run.

    0. whether the kit is complete (exit code 2 if not, before the GPU is touched)
    1. the golden integers of every model in the kit (exit code 1 if one differs)
    2. the candidates of each tuning task: their bits against the arithmetic contract on random and
       on extreme inputs (exit code 1 if one differs or fails), then microseconds: what
       vitq tune --results takes
    3. models and contestants in turn, for each batch size: the GPU's time for a batch queued behind
       other work, and ``alone_ms``, which includes the processor's time for launching it
    4. the int8 rate and the bandwidth of this GPU, each kernel against them, torch._int_mm

Results are written after every step, so that a run which is cut off leaves what it has. With
``--minutes`` nothing begins after so many: it is listed as left out. What has begun is finished.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .contents import open_kit
from .contestants import (
    int_mm_times,
    library_contestant,
    onnxruntime_contestants,
    peak_macs_per_s,
    torch_contestants,
)
from .ffi import Runtime, RuntimeFailedError
from .kernels import measure_task, roofline, wrong_cases
from .model import Model
from .results import Results
from .timing import Gpu, summary

WARM_UP_RUNS = 20
RUNS_OF_A_ROUND = 10


def main() -> int:
    """Run the kit."""
    parser = argparse.ArgumentParser(prog="gpu_kit", description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="torch.compile takes part, too")
    parser.add_argument("--skip", default="", help="golden,tasks,benchmark,peak: with commas")
    parser.add_argument("--minutes", type=float, help="nothing begins after so many")
    arguments = parser.parse_args()
    skip, kit = set(arguments.skip.split(",")), arguments.kit
    try:
        about, tasks = open_kit(kit)
        results = Results(arguments.out, arguments.minutes)
        with contextlib.suppress(ImportError):
            import torch  # noqa: F401 - its libraries first: TVM's are loaded for all to see
        runtime = Runtime(kit / "lib", cuda=True)
        gpu = Gpu(runtime.ffi)
    except RuntimeFailedError as error:
        print(f"gpu_kit: {error}", file=sys.stderr)
        return 2
    if "golden" not in skip:
        _golden(kit, about, results)
    if "tasks" not in skip:
        _tasks(kit, tasks, runtime, gpu, results)
    if "benchmark" not in skip:
        for entry in about["benchmarks"]:
            if results.may_begin(f"benchmark {entry['model']} batch {entry['batch']}"):
                _benchmark(kit, entry, gpu, results, arguments)
    if "peak" not in skip and results.may_begin("peak"):
        _peak(about, gpu, results)
    results.write()
    print(*results.summary(), sep="\n")
    return 0 if results.good else 1


def _golden(kit: Path, about: dict[str, Any], results: Results) -> None:
    """Golden pictures of all models."""
    for name in about["models"]:
        if not results.may_begin(f"golden {name}"):
            continue
        folder = kit / "models" / name
        pixels = np.load(folder / "golden_pixels.npy")
        codes = np.load(folder / "golden_codes.npy")
        try:
            different = int((Model(folder, kit / "lib")(pixels) != codes).sum())
        except RuntimeFailedError as error:
            results.wrong(f"golden {name}", error)
            different = -1
        else:
            if different:
                results.wrong(f"golden {name}", f"{different} integers differ")
        row = {"model": name, "integers": codes.size, "different": different}
        results.content["golden"].append(row)
        print(f"golden {name}: {different} of {codes.size} integers differ", flush=True)
        results.write()


def _tasks(
    kit: Path, tasks: list[dict[str, Any]], runtime: Runtime, gpu: Gpu, results: Results
) -> None:
    """All candidates."""
    for task in tasks:
        text = task["task"]
        if not results.may_begin(text):
            continue
        started = time.monotonic()
        try:
            found = measure_task(kit, task, runtime, gpu)
        except RuntimeFailedError as failure:
            results.wrong(text, failure)
            continue
        results.content["tasks"].append(found)
        for point in found["points"]:
            if wrong := wrong_cases(point):
                error = f"other bits than the contract's on {' and '.join(wrong)} inputs"
                results.wrong(f"{text}, {point['values']}", error)
            elif "error" in point:
                results.wrong(f"{text}, {point['values']}", point["error"])
        times = [p["us"] for p in found["points"] if p["us"] is not None]
        best, first = min(times, default=float("nan")), found["points"][0]["us"]
        seconds = time.monotonic() - started
        print(f"{text}: default {first} us, best {best:.2f} us ({seconds:.1f} s)", flush=True)
        results.write()


def _benchmark(
    kit: Path, entry: dict[str, Any], gpu: Gpu, results: Results, arguments: Any
) -> None:
    """One model at one batch size: all contestants in turn."""
    batch, size = entry["batch"], entry["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
    makers: dict[str, Callable[[], Any]] = {}
    for label, name in entry["libraries"].items():
        folder = kit / "models" / name
        makers[label] = partial(library_contestant, folder, kit / "lib", pixels)
    floats = np.random.default_rng(0).normal(size=pixels.shape).astype(np.float32)
    for label, name in entry["float_libraries"].items():
        folder = kit / "models" / name
        makers[label] = partial(library_contestant, folder, kit / "lib", floats)
    try:
        name = entry.get("timm")
        if name:
            makers |= torch_contestants(name, batch, size, arguments.compile)
    except ImportError as error:
        results.failed("torch contestants", error)
    if entry.get("onnx"):
        makers |= onnxruntime_contestants(kit / entry["onnx"], batch, size)
    ready = {}
    for label, make in makers.items():
        try:
            run = make()
            for _ in range(WARM_UP_RUNS):
                run()
            gpu.wait()
            ready[label] = run
        except Exception as error:  # a contestant that cannot run must not end the others
            results.failed(f"{entry['model']} batch {batch} {label}", error)
    times: dict[str, list[float]] = {label: [] for label in ready}
    alone: dict[str, list[float]] = {label: [] for label in ready}
    for _ in range(arguments.rounds):
        for label, run in ready.items():
            for _ in range(RUNS_OF_A_ROUND):
                gpu.delay()
                with gpu.elapsed(times[label]):
                    run()
                with gpu.elapsed(alone[label]):
                    run()
    for label, found in times.items():
        row = {"model": entry["model"], "batch": batch, "contestant": label}
        row |= summary(found, batch) | {"alone_ms": statistics.median(alone[label])}
        results.content["rows"].append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    results.write()


def _peak(about: dict[str, Any], gpu: Gpu, results: Results) -> None:
    """Measure this GPU's int8 rate, and PyTorch's product for each of ours."""

    def time_ms(run: Callable[[], Any]) -> float:
        for _ in range(WARM_UP_RUNS):
            run()
        times: list[float] = []
        for _ in range(RUNS_OF_A_ROUND):
            with gpu.elapsed(times):
                run()
        return summary(times, 1)["median_ms"]

    content = results.content
    try:
        content["bytes_per_s"] = gpu.bytes_per_s()
        content["int8_macs_per_s"] = peak_macs_per_s(time_ms)
        content["int_mm_ms"] = int_mm_times(about["products"], time_ms)
        rates = content["int8_macs_per_s"], content["bytes_per_s"]
        content["roofline"] = roofline(content["tasks"], *rates)
        for row in content["roofline"]:
            share, times = row["share_of_int8_rate"], row["times_floor"]
            print(f"{row['task']}: {share:.0%} of the int8 rate, {times:.1f} x the floor")
    except Exception as error:  # PyTorch may be absent, or refuse
        results.failed("int8 rate", error)


if __name__ == "__main__":
    sys.exit(main())
