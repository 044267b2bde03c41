"""Compares every candidate of each tuning task with the arithmetic contract, and times it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .drawing import CASES, RANDOM, Activation, digest, draw
from .ffi import Runtime, RuntimeFailedError, tensor_at
from .timing import Gpu

TASKS_NAME, KERNELS_NAME, CONSTANTS_NAME = "tasks.json", "kernels.so", "constants.npz"


def read_tasks(kit: Path) -> list[dict[str, Any]]:
    """Return the kit's tasks; none in a kit without candidates."""
    path = kit / TASKS_NAME
    tasks: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return tasks


def measure_task(kit: Path, task: dict[str, Any], runtime: Runtime, gpu: Gpu) -> dict[str, Any]:
    """Compare every point of a task with the contract on each of `CASES`, and time the right ones.

    Args:
        kit: the kit's folder.
        task: one of `read_tasks`.
        runtime: TVM's.
        gpu: CUDA's.

    Returns:
        The task's text, and for each point its values, by case whether its result is ``right``,
        and microseconds: None if it failed or is wrong.

    Raises:
        RuntimeFailedError: the kernels do not load, or this NumPy draws other inputs than the
            kit's maker, so that nothing can be compared.
    """
    folder = kit / task["folder"]
    drawn = {case: _drawn(task, case) for case in CASES}
    module = runtime.load(folder / KERNELS_NAME)
    cases = _cases(folder, task, drawn, gpu, runtime.device)
    points = [_measure(point, module, cases, runtime, gpu) for point in task["points"]]
    about = {name: task.get(name) for name in ("task", "product", "macs", "bytes")}
    return about | {"points": points}


def wrong_cases(point: dict[str, Any]) -> list[str]:
    """Where a point of `measure_task` is not right."""
    return [case for case, right in point["right"].items() if not right]


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
            "macs": task["macs"],
            "bytes": task["bytes"],
            "us": best,
            "floor_us": floor,
            "times_floor": best / floor,
            "share_of_int8_rate": products / best,
        })
    return rows


def _drawn(task: dict[str, Any], case: str) -> list[Any]:
    """Draw a case's activations, proven to be those that the contract was evaluated on."""
    contract = task["contract"]
    arrays = draw(
        case,
        [
            Activation(shape, dtype, *codes)
            for (shape, dtype), codes in zip(task["types"][:-1], contract["codes"], strict=True)
            if codes is not None
        ],
    )
    if digest(arrays) != contract["cases"][case]["inputs"]:
        made = contract["numpy"]
        raise RuntimeFailedError(
            f"not compared: NumPy {np.__version__} draws other {case} inputs than the kit's "
            f"{made}: pip install numpy=={made}"
        )
    return arrays


class _Case:
    """One set of inputs on the GPU, and what must come out.

    Args:
        arguments: of the kernel.
        out: address and poison of the result, which all cases share.
        expected: hash of the contract's result.
        keep: what the arguments point to.
    """

    def __init__(
        self, arguments: list[Any], out: tuple[int, Any], expected: str, keep: list[Any]
    ) -> None:
        self.arguments, self.expected, self.keep = arguments, expected, keep
        self.address, self.poison = out
        self._right: Any = None

    def is_right(self, function: Any, gpu: Gpu) -> bool:
        """Whether a kernel computes the contract's bits."""
        gpu.put_into(self.address, self.poison)
        function(*self.arguments)
        gpu.wait()
        found = np.empty_like(self.poison)
        gpu.get(self.address, found)
        if self._right is None and digest([found]) == self.expected:
            self._right = found  # comparing with it is faster than hashing
        return self._right is not None and np.array_equal(found, self._right)


def _cases(
    folder: Path, task: dict[str, Any], drawn: dict[str, list[Any]], gpu: Gpu, device: int
) -> dict[str, _Case]:
    """Device tensors: the constants of the model, each case's activations, a poisoned output."""
    keep: list[Any] = []

    def tensor(array: Any) -> Any:
        array = np.ascontiguousarray(array)
        address, bits = gpu.put(array), 8 * array.itemsize
        found, extents = tensor_at(address, array.shape, array.dtype.kind, bits, device)
        keep.append(extents)
        return found

    with np.load(folder / CONSTANTS_NAME, allow_pickle=False) as stored:
        constants = {name: tensor(stored[name]) for name in stored.files}
    *inputs, (shape, dtype) = task["types"]
    info, numbers = np.iinfo(dtype), np.random.default_rng(len(CASES))
    poison = numbers.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    out = tensor(poison)
    cases = {}
    for case, arrays in drawn.items():
        activations = iter([tensor(array) for array in arrays])
        arguments = [
            constants[f"x{index}"] if f"x{index}" in constants else next(activations)
            for index in range(len(inputs))
        ]
        expected = task["contract"]["cases"][case]["output"]
        cases[case] = _Case([*arguments, out], (out.data, poison), expected, keep)
    return cases


def _measure(
    point: dict[str, Any], module: Any, cases: dict[str, _Case], runtime: Runtime, gpu: Gpu
) -> dict[str, Any]:
    """One point; see `measure_task`."""
    right: dict[str, bool] = {}
    result: dict[str, Any] = {"values": point["values"], "us": None, "right": right}
    try:
        function = runtime.method(module, point["symbol"])
        for name, case in cases.items():
            right[name] = case.is_right(function, gpu)
        if all(right.values()):
            result["us"] = gpu.kernel_us(partial(function, *cases[RANDOM].arguments))
    except RuntimeFailedError as error:
        result["error"] = str(error)
    return result
