"""Times the candidates of each tuning task, after checking that they compute the same bits."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .ffi import Runtime, RuntimeFailedError, tensor_at
from .timing import Gpu

TASKS_NAME = "tasks.json"


def read_tasks(kit: Path) -> list[dict[str, Any]]:
    """The kit's tasks; none in a kit without candidates."""
    path = kit / TASKS_NAME
    tasks: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return tasks


def measure_task(kit: Path, task: dict[str, Any], runtime: Runtime, gpu: Gpu) -> dict[str, Any]:
    """Time every point of a task.

    Args:
        kit: the kit's folder.
        task: one of `read_tasks`.
        runtime: TVM's.
        gpu: CUDA's.

    Returns:
        The task's text, and for each point its values, microseconds (None if it failed) and
        whether its output is the first point's.
    """
    folder = kit / task["folder"]
    module = runtime.load(folder / "kernels.so")
    arguments, out, keep = _arguments(folder, task, gpu, runtime.device)
    expected: Any = None
    points = []
    for point in task["points"]:
        result: dict[str, Any] = {"values": point["values"], "us": None}
        try:
            function = runtime.method(module, point["symbol"])
            gpu.put_into(out.address, out.noise)
            function(*arguments)
            gpu.wait()
            found = np.empty_like(out.noise)
            gpu.get(out.address, found)
            expected = found if expected is None else expected
            result["same_bits"] = bool((found == expected).all())
            result["us"] = gpu.kernel_us(partial(function, *arguments))
        except RuntimeFailedError as error:
            result["error"] = str(error)
        points.append(result)
    del keep
    about = {name: task.get(name) for name in ("task", "product", "macs", "bytes")}
    return about | {"points": points}


def roofline(
    tasks: list[dict[str, Any]], macs_per_s: float, bytes_per_s: float
) -> list[dict[str, Any]]:
    """Each task's fastest point against the GPU's measured rates.

    The floor is the longer of two times: its products at the int8 rate, and every operand and
    result once at the copy bandwidth (what the caches hold can be faster).

    Args:
        tasks: of `measure_task`.
        macs_per_s: int8 multiplications in a second.
        bytes_per_s: of device memory.
    """
    rows = []
    for task in tasks:
        times = [point["us"] for point in task["points"] if point["us"] is not None]
        if not times or task["bytes"] is None:
            continue
        best = min(times)
        products = 1e6 * task["macs"] / macs_per_s
        floor = max(products, 1e6 * task["bytes"] / bytes_per_s)
        rows.append({
            "task": task["task"],
            "us": best,
            "floor_us": floor,
            "times_floor": best / floor,
            "share_of_int8_rate": products / best,
        })
    return rows


class _Out:
    def __init__(self, address: int, noise: Any) -> None:
        self.address, self.noise = address, noise


def _arguments(
    folder: Path, task: dict[str, Any], gpu: Gpu, device: int
) -> tuple[list[Any], _Out, list[Any]]:
    """Device tensors: the constants of the model, random activations, a poisoned output."""
    numbers, keep, arguments = np.random.default_rng(0), [], []
    with np.load(folder / "constants.npz", allow_pickle=False) as constants:
        stored = {name: constants[name] for name in constants.files}
    for index, (shape, dtype) in enumerate(task["types"]):
        info = np.iinfo(dtype)
        array = stored.get(f"x{index}")
        if array is None:
            array = numbers.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        array = np.ascontiguousarray(array)
        address = gpu.put(array)
        kind = "u" if dtype.startswith("u") else "i"
        tensor, extents = tensor_at(address, shape, kind, 8 * array.itemsize, device)
        arguments.append(tensor)
        keep.append(extents)
    return arguments, _Out(address, array), keep
