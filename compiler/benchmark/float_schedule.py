"""Schedules for everything in a float model that is no matrix product.

Softmax and layer normalization take TVM's own rule for processors (`dlight.cpu.Reduction`);
functions of elementwise operators and layout changes take `Elementwise`.
"""

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.base import ScheduleRule

from vitq.compiler.target.table import Target

PARALLEL_ITERATIONS = 64
"""Of the outer loop, at most: a thread is not worth less than a few thousand elements."""


def schedule_module(mod: Any, target: Target) -> Any:
    """Schedule every function that TVM's own legalization made; kernels of ours stay."""
    rules = (dlight.cpu.Reduction(), Elementwise(target.cpu.lanes))
    return dlight.ApplyDefaultSchedule(*rules)(mod)


class Elementwise(ScheduleRule):
    """Inline producers; then one parallel loop and vectors along the last axis.

    Args:
        lanes: float32 values in a vector register.
    """

    def __init__(self, lanes: int) -> None:
        super().__init__()
        self.lanes = lanes

    def apply(self, func: Any, target: Any, tunable: bool) -> Any:
        """Return the schedule, or None for a function that is left as it is."""
        if not isinstance(func, tirx.PrimFunc):
            return None
        schedule = s_tir.Schedule(func)
        blocks = dlight.normalize_prim_func(schedule)
        if not blocks or not all(block.is_injective() for block in blocks):
            return None
        for block in dlight.try_inline(schedule, blocks):
            self._vectorize(schedule, schedule.get_loops(block.block_rv))
        return schedule

    def _vectorize(self, schedule: Any, loops: list[Any]) -> None:
        extents = [int(schedule.get(loop).extent) for loop in loops]
        if not extents:
            return
        lanes = next(n for n in range(self.lanes, 0, -1) if extents[-1] % n == 0)
        inner, vector = schedule.split(loops[-1], [None, lanes])
        schedule.vectorize(vector)
        outer = schedule.fuse(*loops[:-1], inner) if len(loops) > 1 else inner
        schedule.parallel(outer)
