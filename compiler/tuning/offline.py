"""Times that were measured elsewhere (`compiler.benchmark.kit`) become records of a log."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from vitq.compiler.gpu_kit.drawing import CASES
from vitq.compiler.gpu_kit.kernels import wrong_cases
from vitq.compiler.target.table import Target
from vitq.compiler.tuning.log import FAILED_S, WORKLOADS, commit, prune, writing
from vitq.compiler.tuning.places import RECORDS
from vitq.compiler.tuning.workload import Task
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

US = 1e-6


def import_results(
    path: Path, tasks: list[Task], target: Target, log: Path, pruned: bool = False
) -> int:
    """Write a kit's results to a log.

    A point that computed other bits than the contract's counts as failed, whatever its time.

    Args:
        path: ``results.json`` of ``python3 -m gpu_kit``.
        tasks: of the model (`compiler.tuning.workload.extract`); others in the file are left out.
        target: of the kit.
        log: folder.
        pruned: whether only the best records of the tasks are kept.

    Returns:
        Records written.

    Raises:
        VitqError: not such a file, no point of a task is right, or nothing for these tasks.
    """
    found, gpu = _read(path)
    known = {task.text: task for task in tasks}
    _report_wrong(path, found)
    if not set(found) & set(known):
        raise VitqError(f"{path} has no times for this model and batch size: make a kit for them")
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target as TvmTarget

    from vitq.compiler.tuning.space import record_of

    count, tvm_target = 0, TvmTarget(target.tvm_config())
    with writing(log, target, processor=gpu):
        database = ms.database.JSONDatabase(
            str(log / WORKLOADS), str(log / RECORDS), allow_missing=True
        )
        for text, points in found.items():
            if text not in known:
                continue
            task = known[text]
            workload = database.commit_workload(task.mod)
            for point in points:
                seconds = 10 * FAILED_S if point["us"] is None else US * point["us"]
                record = record_of(task, workload, point["values"], [seconds], tvm_target)
                commit(database, record, log / RECORDS)
                count += 1
        if pruned:
            prune(log, {task.text: task.kernel.schedule() for task in tasks})
    logger.info("tune: %d records of %s in %s", count, path, log)
    return count


def _report_wrong(path: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """Warn of each point that is wrong.

    Raises:
        VitqError: no other point of its task ran.
    """
    for text, points in found.items():
        wrong = [point["values"] for point in points if point["wrong"]]
        if wrong and all(point["us"] is None for point in points):
            raise VitqError(
                f"{path}: no candidate of {text} computed the contract's bits: please report this"
            )
        for values in wrong:
            logger.warning("tune: %s with %s is WRONG on the GPU: please report this", text, values)


def _read(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Points by task, and the GPU's name."""
    try:
        content = json.loads(path.read_text())
        gpu = str(content.get("gpu") or "unknown").split(",")[0]
        tasks: dict[str, list[dict[str, Any]]] = {}
        for task in content["tasks"]:
            for point in task["points"]:
                tasks.setdefault(task["task"], []).append(_outcome(point))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VitqError(f"{path} is not the result of a kit: {error}") from error
    return tasks, gpu


def _outcome(point: dict[str, Any]) -> dict[str, Any]:
    """Values, microseconds (None if it failed or is wrong), and whether it is wrong.

    Raises:
        ValueError: a time that is none, or of a kernel that was not compared with the contract.
    """
    us, right = point["us"], point.get("right")
    if us is not None and not (math.isfinite(us) and us > 0):
        raise ValueError(f"a time of {us} us")
    if not isinstance(right, dict) or (us is not None and set(right) != set(CASES)):
        raise ValueError("its kernels were not compared with the contract, make the kit again")
    wrong = bool(wrong_cases(point))
    return {"values": point["values"], "us": None if wrong else us, "wrong": wrong}
