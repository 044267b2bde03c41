"""The kernels of a CUDA library against the arithmetic contract, on a machine without a GPU.

Each kernel runs with the schedule that it was compiled with, thread by thread in NumPy
(`compiler.kernels.cuda.emulator.emulator`), on the codes that a kit's kernels are compared on
(`compiler.codegen.contract`). That finds wrong arithmetic, indices and races, not a wrong compiler
of machine code: a kit does, on a GPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitq.compiler.codegen.contract import Operator, operators_of
from vitq.compiler.gpu_kit.drawing import CASES
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cuda.emulator.emulator import run_kernel
from vitq.compiler.kernels.emulation import EmulationError
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.support.progress import progress_bar
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.workload import task_text
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError


class Compared(NamedTuple):
    """One kernel on one case's codes.

    Attributes:
        name: of the kernel, and the case.
        found: what the kernel computes.
        expected: the contract's integers, of the same shape.
    """

    name: str
    found: IntArray
    expected: IntArray


def compare_kernels(
    mod: Any, target: Target, schedules: Sequence[Mapping[str, Any]]
) -> Iterator[Compared]:
    """Run every kernel of a library once for each case.

    Args:
        mod: the integer module that the library was compiled from.
        target: with a GPU.
        schedules: of ``metadata.json``, one for each kernel.

    Raises:
        VitqError: the library has other kernels than this version makes of the module, or one does
            what no kernel may do, such as a race.
    """
    kernels: dict[Kernel, Operator] = {}
    for operator in operators_of(mod, target.features):
        kernels.setdefault(operator.kernel, operator)
    if [task_text(kernel) for kernel in kernels] != [known["task"] for known in schedules]:
        raise VitqError("the library was compiled by another version of vitq: compile again")
    work = [
        (operator, known["name"], known["values"], case)
        for operator, known in zip(kernels.values(), schedules, strict=True)
        for case in CASES
    ]
    for operator, name, values, case in progress_bar(work, "emulate", len(work), "kernel"):
        drawn = operator.draw(case)
        try:
            found = emulate(operator, drawn, values)
        except EmulationError as error:
            raise VitqError(
                f"the kernel {name} with {values} fails: {error}; please report this"
            ) from error
        yield Compared(f"{name}, {case}", found, operator.evaluate(drawn))


def emulate(operator: Operator, activations: list[IntArray], values: Schedule) -> IntArray:
    """Return what a kernel computes.

    Args:
        operator: that it stands for.
        activations: in the kernel's order.
        values: of its schedule, as far as it is not the default.
    """
    kernel, rest = operator.kernel, iter(activations)
    inputs = [next(rest) if value is None else value for value in operator.constants]
    known = [i for i, value in enumerate(operator.constants) if value is not None]
    out = np.zeros(kernel.out.shape, kernel.out.dtype)
    return run_kernel(build_kernel(kernel, values), inputs, out, known)
