"""What a worker does for one trial: compile a kernel, then time it or predict its time.

Timing follows the conditions inside a model. There the activations were written a moment ago by
the kernel before, and the constants were last read one inference ago, since when all other layers'
went through the cache. So activations are one set that is used again and again, and the
constants are used in turn from as many copies as overflow the second-level cache.
"""

import functools
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.compiler.target.table import Target
from vitq.numerics.arrays import IntArray

EVICT_BYTES = 4 << 20
"""Constants of one round: more than the second-level cache of any core in the table of targets."""
SMALL_BYTES = 16 << 10
"""Constants that stay in the first-level cache are not copied."""
GPU = "cuda"
"""Kind of TVM's target."""
BLOCKS = 3
"""A measurement is the lowest median of so many blocks."""
MIN_ROUNDS = 3
PREDICTED_HZ = 1e9
"""What predicted cycles are written down with, so that they have the records' unit."""


@dataclass(frozen=True)
class Inputs:
    """What a kernel is timed with.

    Attributes:
        kernel: its types.
        constants: path of an ``.npz`` of the constant inputs, ``x<index>``.
    """

    kernel: Kernel
    constants: Path


def save_constants(path: Path, constants: Sequence[IntArray | None]) -> None:
    """Write the constant inputs of a kernel."""
    arrays: dict[str, Any] = {f"x{i}": c for i, c in enumerate(constants) if c is not None}
    np.savez(path, **arrays)


def compile_kernel(
    kernel: Kernel, schedule: Schedule, config: Mapping[str, Any], compiler: str, path: str
) -> str:
    """Compile a kernel to a library.

    Args:
        kernel: which.
        schedule: its values.
        config: of TVM's target.
        compiler: that links.
        path: of the library.

    Returns:
        The path.
    """
    import tvm
    from tvm.target import Target as TvmTarget

    if config["kind"] == GPU:
        from vitq.compiler.nvidia.build import build_kernels

        gpu_library = build_kernels({kernel.name: (kernel, schedule)}, config)
        gpu_library.export_library(path, cc=compiler)
        return path
    target = TvmTarget(dict(config))
    func = build_kernel(kernel, schedule)
    func = func.with_attr({"target": target, "global_symbol": kernel.name})
    library = tvm.compile(tvm.IRModule({kernel.name: func}), target=target)
    library.export_library(path, cc=compiler)
    return path


def time_kernel(path: str, inputs: Inputs, budget_s: float) -> float:
    """Seconds of one call, as robust as the budget allows.

    Args:
        path: of the library.
        inputs: what to call it with.
        budget_s: how long to measure.

    Returns:
        The lowest of the blocks' medians.
    """
    import tvm

    if isinstance(inputs.kernel.features, GpuFeatures):
        return _time_on_gpu(path, inputs, budget_s)
    function = tvm.runtime.load_module(path)[inputs.kernel.name]
    sets = argument_sets(inputs)
    for arguments in sets:
        function(*arguments)
    once = _round(function, sets)
    rounds = max(MIN_ROUNDS, int(budget_s / BLOCKS / max(once * len(sets), 1e-9)))
    blocks = [
        statistics.median(_round(function, sets) for _ in range(rounds)) for _ in range(BLOCKS)
    ]
    return min(blocks)


def _time_on_gpu(path: str, inputs: Inputs, budget_s: float) -> float:
    """Time a kernel between CUDA events.

    Its second-level cache holds a whole model of the table's sizes: constants are not copied.
    """
    import tvm

    from vitq.compiler.nvidia.driver import load_runtime

    load_runtime()
    device = tvm.cuda()
    arguments = [tvm.runtime.tensor(a.numpy(), device) for a in argument_sets(inputs)[0]]
    timer = tvm.runtime.load_module(path).time_evaluator(
        inputs.kernel.name, device, number=8, repeat=BLOCKS, min_repeat_ms=1000 * budget_s / BLOCKS
    )
    return float(min(timer(*arguments).results))


def predict_kernel(path: str, inputs: Inputs, target: Target) -> float:
    """Cycles of one call on a processor that is emulated here, in seconds at `PREDICTED_HZ`.

    Args:
        path: of the library.
        inputs: its kernel.
        target: of the library.

    Returns:
        A prediction (`compiler.target.qemu.Cost.cycles`), the same in every run.
    """
    from vitq.compiler.target.qemu import predict

    return predict(Path(path), inputs.kernel, target).cycles / PREDICTED_HZ


def _round(function: Any, sets: Sequence[Sequence[Any]]) -> float:
    """Mean seconds of a call over all sets of arguments."""
    start = time.perf_counter()
    for arguments in sets:
        function(*arguments)
    return (time.perf_counter() - start) / len(sets)


@functools.lru_cache(maxsize=4)
def argument_sets(inputs: Inputs) -> list[list[Any]]:
    """Arguments of the calls of one round."""
    import tvm

    arrays, constants = inputs_of(inputs)
    hot = {i: tvm.runtime.tensor(a) for i, a in enumerate(arrays) if i not in constants}
    return [
        [hot[i] if i in hot else tvm.runtime.tensor(array) for i, array in enumerate(arrays)]
        for _ in range(constant_copies(inputs))
    ]


@functools.lru_cache(maxsize=4)
def inputs_of(inputs: Inputs) -> tuple[list[IntArray], frozenset[int]]:
    """All arrays of a call, the result's included, and which of them are constants."""
    numbers = np.random.default_rng(0)
    with np.load(inputs.constants, allow_pickle=False) as stored:
        constants = {int(name.removeprefix("x")): stored[name] for name in stored.files}
    types = [*inputs.kernel.inputs, inputs.kernel.out]
    arrays = [
        constants[i] if i in constants else _codes(numbers, kind) for i, kind in enumerate(types)
    ]
    return arrays, frozenset(constants)


def constant_copies(inputs: Inputs) -> int:
    """In how many sets the constants are used, so that they come from further away."""
    arrays, constants = inputs_of(inputs)
    size = sum(arrays[i].nbytes for i in constants)
    return -(-EVICT_BYTES // size) if size > SMALL_BYTES else 1


def _codes(numbers: np.random.Generator, kind: TensorType) -> IntArray:
    """Codes as quantized activations have them: around 0, rarely at the ends."""
    info = np.iinfo(kind.dtype)
    middle, spread = (info.min + info.max) / 2, (info.max - info.min) / 8
    values = numbers.normal(middle, spread, kind.shape).round()
    return np.clip(values, info.min, info.max).astype(kind.dtype)


def available_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
