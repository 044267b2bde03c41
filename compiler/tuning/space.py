"""The search space: every point is valid, and a point is MetaSchedule's own trace.

For each knob the trace samples one of the choices and writes it to the descriptor's block. What is
MetaSchedule's (replay, records, evolution) works on the trace; what is ours reads the annotations.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm.ir.utils import derived_object
from tvm.runtime import tensor
from tvm.s_tir import Schedule as TvmSchedule
from tvm.s_tir.meta_schedule.database import TuningRecord, Workload
from tvm.s_tir.meta_schedule.feature_extractor import PyFeatureExtractor
from tvm.s_tir.meta_schedule.mutator import PyMutator
from tvm.s_tir.meta_schedule.space_generator import ScheduleFn

from vitq.compiler.kernels.kernel import Knob
from vitq.compiler.tuning.log import PREFIX
from vitq.compiler.tuning.workload import BLOCK, Task, text_of

SAMPLE = "SampleCategorical"


def space_of(task: Task, seed: int) -> Any:
    """MetaSchedule's generator of a task's space, with our mutator."""

    def generate(schedule: Any) -> Any:
        return _sample(schedule, task.knobs, None)

    return ScheduleFn(
        generate, sch_rules=[], postprocs=[], mutator_probs={KnobMutator(random.Random(seed)): 1.0}
    )


def point(task: Task, values: Mapping[str, int]) -> Any:
    """Return the schedule of a task with given values.

    Args:
        task: the task.
        values: of every knob.

    Returns:
        A schedule whose trace is what the search would have made.
    """
    return _sample(TvmSchedule(task.mod), task.knobs, values)


def _sample(schedule: Any, knobs: Mapping[str, Knob], values: Mapping[str, int] | None) -> Any:
    block = schedule.get_sblock(BLOCK)
    for name, knob in sorted(knobs.items()):
        choices = list(knob.choices)
        decision = None if values is None else choices.index(values[name])
        chance = [1 / len(choices)] * len(choices)
        value = schedule.sample_categorical(choices, chance, decision=decision)
        schedule.annotate(block, PREFIX + name, value)
    return schedule


def values_of(mod: Any) -> dict[str, int]:
    """Return the values that a scheduled descriptor carries."""
    schedule = TvmSchedule(mod)
    annotations = schedule.get(schedule.get_sblock(BLOCK)).annotations
    return {
        str(key).removeprefix(PREFIX): int(value)
        for key, value in annotations.items()
        if str(key).startswith(PREFIX)
    }


def record_of(
    task: Task, workload: Workload, values: Mapping[str, int], seconds: Sequence[float], target: Any
) -> TuningRecord:
    """MetaSchedule's record of a measurement."""
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    arguments = ArgInfo.from_prim_func(task.mod["main"])
    return TuningRecord(
        point(task, values).trace, workload, [float(s) for s in seconds], target, arguments
    )


@derived_object
class KnobMutator(PyMutator):
    """Gives one knob another of its choices. MetaSchedule's own mutators know loop tiles only."""

    def __init__(self, numbers: random.Random) -> None:
        super().__init__()
        self.numbers = numbers

    def _initialize_with_tune_context(self, context: Any) -> None:
        pass

    def apply(self, trace: Any, _: Any) -> Any:
        """Return the mutated trace; None if there is nothing to choose."""
        free = [i for i in trace.insts if i.kind.name == SAMPLE and len(i.attrs[0]) > 1]
        if not free:
            return None
        chosen = self.numbers.choice(free)
        others = [i for i in range(len(chosen.attrs[0])) if i != int(trace.decisions[chosen])]
        return trace.with_decision(chosen, self.numbers.choice(others), True)

    def clone(self) -> Any:
        """Another one, with its own random numbers."""
        return KnobMutator(random.Random(self.numbers.random()))


def knob_features(tasks: Sequence[Task]) -> Any:
    """Return what the cost model sees, for candidates of any of the tasks."""
    names = sorted({name for task in tasks for name in task.knobs})
    kinds = sorted({task.kernel.name for task in tasks})
    fixed = {task.text: _task_features(task, kinds) for task in tasks}
    sizes = {task.text: _sizes(task) for task in tasks}

    def of(mod: Any) -> list[float]:
        text = text_of(mod)
        return fixed[text] + _value_features(values_of(mod), names, sizes[text])

    return KnobFeatures(of)


@derived_object
class KnobFeatures(PyFeatureExtractor):
    """One row of numbers for each candidate; all candidates have the descriptor's loops."""

    def __init__(self, of: Callable[[Any], list[float]]) -> None:
        super().__init__()
        self.of = of

    def extract_from(self, _: Any, candidates: Sequence[Any]) -> list[Any]:
        """Return the features of some candidates."""
        return [
            tensor(np.array([self.of(candidate.sch.mod)], np.float32)) for candidate in candidates
        ]


def _sizes(task: Task) -> tuple[int, int, int]:
    """Rows and columns of the output, columns of the first input."""
    rows, columns = task.kernel.out.rows.shape
    return rows, columns, task.kernel.inputs[0].rows.shape[1]


def _task_features(task: Task, kinds: Sequence[str]) -> list[float]:
    """Template, sizes, and the bytes that it touches."""
    tensors = (*task.kernel.inputs, task.kernel.out)
    touched = sum(t.size * np.dtype(t.dtype).itemsize for t in tensors)
    return [
        float(kinds.index(task.kernel.name)),
        *(math.log2(size) for size in (*_sizes(task), touched)),
    ]


def _value_features(
    values: Mapping[str, int], names: Sequence[str], sizes: Sequence[int]
) -> list[float]:
    """Each value, how it divides the sizes, and the product of each two (a tile's area)."""
    found = [float(values.get(name, math.nan)) for name in names]
    rest = [
        size % int(value) / value if value > 0 else math.nan for value in found for size in sizes
    ]
    area = [a * b for i, a in enumerate(found) for b in found[:i]]
    return [*found, *rest, *area]
