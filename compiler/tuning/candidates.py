"""Schedules worth timing: for each tuning task the default, the best known, and the best predicted.

The space of a product has some thousand points; `compiler.kernels.cuda.prediction` ranks them, and
of each block shape only the best is taken, so that the candidates differ. Smaller spaces are taken
whole. Nothing is predicted of products in flight (`Tile.flight`): they are timed for the best
tiles. What the log that compile uses has for a task is timed again beside them.
"""

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.contract import Operator, operators_of
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.kernels.cuda.gemm import product_of
from vitq.compiler.kernels.cuda.kernel import gpu_of
from vitq.compiler.kernels.cuda.prediction import ranked
from vitq.compiler.kernels.cuda.tile import KNOBS, Tile
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.compiler.tuning.log import Entry, find_log, read_log
from vitq.compiler.tuning.measure import save_constants
from vitq.compiler.tuning.schedules import best_schedules
from vitq.compiler.tuning.workload import task_text
from vitq.numerics.attention import QkvShape

logger = logging.getLogger(__name__)

KNOWN = 3
"""Points of a log for each task: as many as a shipped one has."""


def candidates_of(
    kernel: Kernel, count: int, known: Sequence[dict[str, int]] = ()
) -> list[dict[str, int]]:
    """Different schedules of a kernel, the default first, then those that are known to be good.

    Args:
        kernel: which.
        count: at most so many by prediction of a large space.
        known: schedules that have been timed before.
    """
    default = kernel.schedule()
    knobs = kernel.knobs()
    if set(knobs) == set(KNOBS):
        found = [vars(tile) for tile in ranked(product_of(kernel), gpu_of(kernel))][:count]
        tiles = [Tile(**values) for values in (default, *known)]
        found = [vars(replace(tile, flight=1)) for tile in tiles if tile.may_fly] + found
    else:
        choices = itertools.product(*(knob.choices for knob in knobs.values()))
        found = [dict(zip(knobs, values, strict=True)) for values in choices]
    ordered = [default, *known, *found]
    return [values for i, values in enumerate(ordered) if values not in ordered[:i]]


class Candidates:
    """The tasks of a kit.

    Args:
        target: with a GPU.
        out: the kit's folder.
        count: candidates of each task; 0 for none.
    """

    def __init__(self, target: Target, out: Path, count: int) -> None:
        self.target, self.out, self.count = target, out, count
        self.tasks: dict[str, Operator] = {}

    def add(self, artifact: Artifact, batch: int) -> None:
        """All kernels of a model at one batch size."""
        model = import_model(artifact.onnx, Meaning(batch))
        for operator in operators_of(model.integer.mod, self.target.features):
            if operator.kernel.is_tunable:
                self.tasks.setdefault(task_text(operator.kernel), operator)

    def products(self) -> list[list[int]]:
        """(M, N, K) of every product."""
        shapes = {
            product_of(operator.kernel)[:3]
            for operator in self.tasks.values()
            if set(operator.kernel.knobs()) == set(KNOBS)
        }
        return [list(shape) for shape in sorted(shapes)]

    def build(self) -> list[dict[str, Any]]:
        """Compile all candidates; the content of ``tasks.json``."""
        return list(self._build()) if self.count else []

    def _build(self) -> Iterator[dict[str, Any]]:
        log = find_log(self.target, True, None)
        entries: dict[str, list[Entry]] = {} if log is None else read_log(log)
        for number, (text, operator) in enumerate(self.tasks.items()):
            folder = self.out / "tasks" / str(number)
            folder.mkdir(parents=True)
            kernel = operator.kernel
            known = best_schedules(entries, kernel, KNOWN)
            points = [
                {"symbol": f"point{i}", "values": values}
                for i, values in enumerate(candidates_of(kernel, self.count, known))
            ]
            save_constants(folder / "constants.npz", operator.constants)
            compile_points(kernel, points, self.target, folder / "kernels.so")
            is_product = set(kernel.knobs()) == set(KNOBS)
            started = time.monotonic()
            contract = operator.to_json()
            logger.info("kit: contract of %s in %.1f s", text, time.monotonic() - started)
            yield {
                "task": text,
                "folder": str(folder.relative_to(self.out)),
                "types": [[list(t.shape), t.dtype] for t in (*kernel.inputs, kernel.out)],
                "product": list(product_of(kernel)[:3]) if is_product else None,
                "macs": _macs(kernel, is_product),
                "bytes": sum(_bytes(t) for t in (*kernel.inputs, kernel.out)),
                "contract": contract,
                "points": points,
            }


def _macs(kernel: Kernel, is_product: bool) -> int:
    """Multiplications of the products in a kernel."""
    if is_product:
        product = product_of(kernel)
        return product.rows * product.columns * product.inner
    if kernel.name in ("attention", "offset_attention"):
        return QkvShape.of(kernel.inputs[0].shape).macs
    return 0


def _bytes(tensor: TensorType) -> int:
    return tensor.size * np.dtype(tensor.dtype).itemsize


def compile_points(
    kernel: Kernel, points: list[dict[str, Any]], target: Target, path: Path
) -> None:
    """Build a library with one function for each schedule.

    Args:
        kernel: of all of them.
        points: with ``symbol`` and ``values``.
        target: with a GPU.
        path: of the library.
    """
    from vitq.compiler.nvidia.build import build_kernels

    functions: dict[str, tuple[Kernel, Schedule]] = {
        point["symbol"]: (kernel, point["values"]) for point in points
    }
    library = build_kernels(functions, target.tvm_config(), target.gpu)
    library.export_library(str(path.resolve()), cc=find_compiler(target))
