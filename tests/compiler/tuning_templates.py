"""Small kernels to tune, one of which crashes or hangs its compiler."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.kernels.cpu.builder import for_chunks, load, store
from vitq.compiler.kernels.kernel import Kernel, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.features import CpuFeatures
from vitq.compiler.tuning.workload import Task, task_text, workload

CRASH, HANG = 3, 5


def _knobs(_: Kernel) -> dict[str, Knob]:
    return {"lanes": Knob((1, 2, 4, 8, 16), 4), "blocks": Knob((1, 2, 4, 8), 1)}


def _emit(kernel: Kernel, schedule: Schedule, x: Any, y: Any, out: Any) -> None:
    """Out = x + y, in blocks, with vectors."""
    size = kernel.out.size // schedule["blocks"]
    for block in range(schedule["blocks"]):

        def add(i: Any, lanes: int) -> None:
            store(out, load(x, i, lanes=lanes) + load(y, i, lanes=lanes), i)

        for_chunks(size, schedule["lanes"], add, block * size)


def _facts(kernel: Kernel) -> tuple[int | str, ...]:
    return kernel.spec[:1] if kernel.spec else ()


ADD = Template("test_add", _emit, _knobs, _facts)


def _bad_knobs(_: Kernel) -> dict[str, Knob]:
    return {"lanes": Knob((1, 2, CRASH, 4, HANG, 8), 4)}


def _bad_emit(kernel: Kernel, schedule: Schedule, *buffers: Any) -> None:
    if schedule["lanes"] == CRASH:
        os._exit(11)
    if schedule["lanes"] == HANG:
        time.sleep(600)
    _emit(kernel, {**schedule, "blocks": 1}, *buffers)


BAD = Template("test_bad", _bad_emit, _bad_knobs)


def kernel_of(template: Template = ADD, size: int = 4096, spec: Any = None) -> Kernel:
    """A kernel that adds a constant vector."""
    vector = TensorType((size,), "int32")
    return Kernel(template, (vector, vector), vector, CpuFeatures("generic", 256), spec)


def task_of(kernel: Kernel, calls: int = 1) -> Task:
    """Its task."""
    constant = np.arange(kernel.out.size, dtype=np.int32)
    return Task(task_text(kernel), kernel, (None, constant), calls, workload(kernel))


def main() -> None:
    """Tune until the trials are made: ``log trials``."""
    from vitq.compiler.stages.tune import TuneOptions, tune_tasks

    options = TuneOptions(trials=int(sys.argv[2]), log=Path(sys.argv[1]))
    tune_tasks([task_of(kernel_of())], get_target("cpu"), options)


if __name__ == "__main__":
    main()
